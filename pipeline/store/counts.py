"""Count what a store holds, from plans and footers alone; no row is read.

A footer says what was dropped from its file when it was written. What no longer counts now may be more (a
removal or a retry that has not rewritten the file yet), so the counts follow from what counts now, not from
the footers' sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.data_files import DATA_FOLDER
from pipeline.store.footer import ShardFooter
from pipeline.store.in_force import InForce
from pipeline.store.plan_files import PlanFile
from pipeline.store.shard_store import ShardStore


@dataclass(frozen=True)
class StoreCounts:
    """What a store holds. Rows and clips are the same unit; ``planned`` excludes what was reopened later.

    ``rows`` and ``quarantined_rows`` include those of superseded videos, which readers do not see.
    """

    videos: int = 0
    planned: int = 0
    rows: int = 0
    quarantined_rows: int = 0
    quarantined_videos: int = 0
    damaged_rows: int = 0
    tombstoned_rows: int = 0
    shards: int = 0
    pending_shards: int = 0
    superseded_videos: int = 0
    data_bytes: int = 0

    @property
    def complete(self) -> bool:
        return (
            self.pending_shards == 0
            and self.rows + self.quarantined_rows + self.tombstoned_rows == self.planned
        )


def count(store: ShardStore) -> StoreCounts:
    """Count. Raises CorruptStoreError where a footer cannot be read."""
    footers = list(store.footers())  # before the plans: what was committed was planned
    return count_footers(store, footers, store.in_force())


def count_footers(store: ShardStore, footers: Iterable[ShardFooter], in_force: InForce) -> StoreCounts:
    """Count the shards whose footers are given; all others are pending."""
    plans = store.plans()
    done = {f.key: f for f in footers}
    taken = {p.generation: _Taken.of(p, in_force) for p in plans}
    rows = missing = damaged = tombstoned = 0
    quarantined: set[str] = set()
    for key, footer in done.items():
        shard = taken[key.generation]
        in_file = shard.removed[key.number] + shard.reopened[key.number] - footer.tombstoned - footer.reopened
        gone = in_force.gone(key.generation, {f.video_id for f in footer.failures})
        live = [f for f in footer.failures if f.video_id not in gone]
        live_missing = sum(f.missing_rows for f in live)
        rows += footer.rows - (in_file - (footer.missing - live_missing))
        missing += live_missing
        tombstoned += shard.removed[key.number]
        seen = [f for f in live if f.video_id not in in_force.amendments.superseded]
        quarantined.update(f.video_id for f in seen)
        damaged += sum(f.damaged_rows for f in seen)
    return StoreCounts(
        videos=_count_videos(plans, store.kind.id_column),
        planned=sum(p.header.clips for p in plans) - sum(sum(t.reopened.values()) for t in taken.values()),
        rows=rows,
        quarantined_rows=missing,
        quarantined_videos=len(quarantined),
        damaged_rows=damaged,
        tombstoned_rows=tombstoned,
        shards=sum(p.header.shards for p in plans),
        pending_shards=sum(key not in done for p in plans for key in p.shard_keys()),
        superseded_videos=len(in_force.amendments.superseded),
        data_bytes=sum(store.files.sizes(DATA_FOLDER).values()),
    )


@dataclass(frozen=True)
class _Taken:
    """Planned clips of one generation that no longer count, by shard number."""

    removed: dict[int, int]
    reopened: dict[int, int]

    @classmethod
    def of(cls, plan: PlanFile, in_force: InForce) -> _Taken:
        taken = cls(defaultdict(int), defaultdict(int))
        if not in_force.any_gone(plan.generation):
            return taken
        later = in_force.reopened[plan.generation]
        gone = pa.array(sorted(in_force.tombstones | later), pa.string())
        for batch in plan.batches([plan.id_column, "clips", "shard"]):
            chosen = batch.filter(
                pc.and_(pc.is_in(batch[plan.id_column], gone), pc.greater_equal(batch["shard"], 0))
            )
            columns = (chosen[name].to_pylist() for name in (plan.id_column, "clips", "shard"))
            for video, clips, shard in zip(*columns, strict=True):
                (taken.reopened if video in later else taken.removed)[shard] += clips
        return taken


def _count_videos(plans: list[PlanFile], id_column: str) -> int:
    if len(plans) == 1 and plans[0].has_uris:  # a target store plans a video once a generation
        return plans[0].header.videos
    ids = [np.array(b.column(0).to_pylist(), "S32") for p in plans for b in p.batches([id_column])]
    return len(np.unique(np.concatenate(ids))) if ids else 0
