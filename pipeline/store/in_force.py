"""What counts: which planned videos were removed, taken over by a later generation, superseded or amended.

    removed      a tombstone names it; for good, in every generation
    reopened     a later generation computes it anew; its rows in earlier ones no longer count
    superseded   every URI of it now holds other bytes; its rows count but are not shown
    amended      a later row without work (shard -1) says its URIs, label, split and group anew

Where a video was both reopened and removed, an earlier generation calls it reopened and only the last one
removed, so that its planned rows are accounted for once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.plan_files import PlanFile

_METADATA = ["video_id", "uris", "label", "split", "group", "shard"]


@dataclass(frozen=True)
class Amended:
    """The newest word on a video that was planned before."""

    uris: tuple[str, ...]
    label: str | None
    split: str | None
    group: str | None

    @property
    def uri(self) -> str | None:
        return self.uris[0] if self.uris else None


@dataclass(frozen=True)
class Amendments:
    """What later generations say of videos that were planned before: newest first wins."""

    metadata: Mapping[str, Amended] = field(default_factory=dict)
    superseded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class InForce:
    """What counts, at one moment."""

    tombstones: frozenset[str]
    reopened: Mapping[int, frozenset[str]]  # generation -> ids that a later one computes anew
    amendments: Amendments

    def split(self, generation: int, ids: Collection[str]) -> tuple[set[str], set[str]]:
        """Those of ``ids``, planned in a generation, that no longer count there: (removed, reopened)."""
        reopened = self.reopened.get(generation, frozenset()).intersection(ids)
        return set(self.tombstones.intersection(ids) - reopened), set(reopened)

    def gone(self, generation: int, ids: Collection[str]) -> set[str]:
        """Those of ``ids`` whose rows no longer count in a generation."""
        removed, reopened = self.split(generation, ids)
        return removed | reopened

    def hidden(self, generation: int, ids: Collection[str]) -> set[str]:
        """Those of ``ids`` whose rows of a generation are not shown to readers."""
        return self.gone(generation, ids) | self.amendments.superseded.intersection(ids)

    def any_gone(self, generation: int) -> bool:
        return bool(self.tombstones or self.reopened.get(generation))


def reopened_by_generation(plans: Iterable[PlanFile]) -> dict[int, frozenset[str]]:
    """For each generation the ids that a later one computes anew."""
    out: dict[int, frozenset[str]] = {}
    later: frozenset[str] = frozenset()
    for plan in sorted(plans, key=lambda p: p.generation, reverse=True):
        out[plan.generation] = later
        if plan.header.reopens:
            later |= plan.ids
    return out


def amendments(plans: Iterable[PlanFile]) -> Amendments:
    """Rows with nothing to compute in generations after the first, and what a reopening says anew."""
    metadata: dict[str, Amended] = {}
    superseded: set[str] = set()
    for plan in plans:
        if plan.generation == 1 or not plan.has_uris:
            continue
        for batch in plan.batches(_METADATA):
            if not plan.header.reopens:  # other rows with work are of videos that are new
                batch = batch.filter(pc.less(batch["shard"], 0))
            for row in batch.to_pylist():
                superseded.discard(row["video_id"])
                metadata.pop(row["video_id"], None)
                if not row["uris"]:
                    superseded.add(row["video_id"])
                elif row["shard"] < 0:
                    about = Amended(tuple(row["uris"]), row["label"], row["split"], row["group"])
                    metadata[row["video_id"]] = about
    return Amendments(metadata, frozenset(superseded))


def without_ids(table: pa.Table, column: str, ids: Iterable[str]) -> pa.Table:
    """``table`` less the rows whose ``column`` is one of ``ids``."""
    gone = sorted(ids)
    if not gone or not table.num_rows:
        return table
    return table.filter(pc.invert(pc.is_in(table[column], value_set=pa.array(gone, table[column].type))))
