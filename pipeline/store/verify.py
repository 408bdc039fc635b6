"""Prove a store: no gap, no duplicate, no stranger; and count what is done.

A store is *clean* when every file under ``data/`` is whole, of this spec and this plan, holds just the clips that
the plan asks for, each once, sorted, and accounts in its footer for those that are missing. It is *complete* when
besides no shard is pending. Rows that a late writer brought back after a removal are reported as stale: mending
(`prune`) removes them, and readers do not see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.store.footer import ShardFooter
from pipeline.store.read import amendments
from pipeline.store.shard_store import DATA_FOLDER, ShardStore, data_name
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import CorruptStoreError
from schemas.shard import Failure, ShardKey


@dataclass(frozen=True)
class StoreCounts:
    """What a store holds. Rows and clips are the same unit; ``planned`` excludes what later generations took over."""

    videos: int
    planned: int
    rows: int
    quarantined_rows: int
    quarantined_videos: int
    damaged_rows: int
    tombstoned_rows: int
    shards: int
    pending_shards: int
    superseded_videos: int
    data_bytes: int

    @property
    def complete(self) -> bool:
        return self.pending_shards == 0 and self.rows + self.quarantined_rows + self.tombstoned_rows == self.planned


@dataclass(frozen=True)
class VerifyReport:
    """``problems`` are contradictions; ``stale`` are shards with rows that no longer count and can be swept."""

    counts: StoreCounts
    problems: tuple[str, ...]
    stale: tuple[ShardKey, ...]

    @property
    def clean(self) -> bool:
        return not self.problems and not self.stale


def count(store: ShardStore) -> StoreCounts:
    """Count from plan headers and footers alone; reads no rows."""
    plans = store.plans()
    done = store.committed()
    superseded = amendments(store).superseded
    footers = list(store.footers())
    reopened = {p.generation: store.reopened_after(p.generation) for p in plans}
    live = [
        f for t in footers for f in t.failures if f.video_id not in reopened.get(t.key.generation, ()) | superseded
    ]
    return StoreCounts(
        videos=_count_videos(store),
        planned=sum(p.header.clips for p in plans) - sum(p.header.clips for p in plans if p.header.reopens),
        rows=sum(f.rows for f in footers),
        quarantined_rows=sum(f.missing for f in footers) - _reopened_missing(footers, reopened),
        quarantined_videos=len({f.video_id for f in live}),
        damaged_rows=sum(f.damaged_rows for f in live),
        tombstoned_rows=sum(f.tombstoned for f in footers),
        shards=sum(p.header.shards for p in plans),
        pending_shards=sum(key not in done for p in plans for key in p.keys()),
        superseded_videos=len(superseded),
        data_bytes=sum(store.files.sizes(DATA_FOLDER).values()),
    )


def verify(store: ShardStore) -> VerifyReport:
    """Read every data file's keys and footer and hold them against the plan."""
    problems: list[str] = []
    stale: list[ShardKey] = []
    clip = _clip_spec(store)
    planned = {key for plan in store.plans() for key in plan.keys()}
    problems += [f"{DATA_FOLDER}/{name}: not a file of the plan" for name in _strangers(store, planned)]
    problems += _planned_twice(store)
    tombstones = store.tombstones()
    gone = {p.generation: tombstones | store.reopened_after(p.generation) for p in store.plans()}

    def one(key: ShardKey) -> tuple[list[str], bool]:
        return _verify_shard(store, key, gone[key.generation], clip)

    keys = sorted(store.committed() & planned)
    with ThreadPoolExecutor(4) as pool:
        for key, (found, is_stale) in zip(keys, pool.map(one, keys), strict=True):
            problems += found
            stale += [key] if is_stale else []
    try:
        counts = count(store)
    except CorruptStoreError as e:
        problems.append(str(e))
        counts = StoreCounts(*(0,) * 11)
    return VerifyReport(counts, tuple(dict.fromkeys(problems)), tuple(stale))


def _verify_shard(
    store: ShardStore, key: ShardKey, gone: frozenset[str], clip: ClipSpec | None
) -> tuple[list[str], bool]:
    name, kind = data_name(key), store.kind
    try:
        parquet, footer = store.open_data(key)
        table = parquet.read(columns=list(kind.sort_columns) + (["end_us"] if clip else []))
        parquet.close(force=True)
    except (CorruptStoreError, OSError) as e:
        return [f"{name}: {e}"], False
    plan = store.plan(key.generation)
    problems = []
    if footer.fingerprint != store.document.fingerprint or footer.kind != kind.name:
        problems.append(f"{name}: of fingerprint {footer.fingerprint}, the store's is {store.document.fingerprint}")
    if footer.plan_hash != plan.digest:
        problems.append(f"{name}: made from another plan ({footer.plan_hash}) than {plan.generation}'s {plan.digest}")
    if footer.rows != table.num_rows:
        problems.append(f"{name}: {table.num_rows} rows, its footer says {footer.rows}")
    if not footer.balanced:
        problems.append(f"{name}: {footer.rows} rows + {footer.missing} missing is not {footer.planned} planned")
    rows = list(zip(*(c.to_pylist() for c in table.columns), strict=True))
    keys = [row[: len(kind.sort_columns)] for row in rows]
    if any(a >= b for a, b in zip(keys, keys[1:], strict=False)):
        problems.append(f"{name}: rows are not sorted by {', '.join(kind.sort_columns)}, or one is there twice")
    problems += [f"{name}: {p}" for p in _against_plan(store, key, rows, footer.failures, gone, clip)]
    present = {row[0] for row in rows} | {f.video_id for f in footer.failures}
    return problems, bool(present & gone)


def _against_plan(
    store: ShardStore,
    key: ShardKey,
    rows: list[tuple[object, ...]],
    failures: Iterable[Failure],
    gone: frozenset[str],
    clip: ClipSpec | None,
) -> Iterator[str]:
    missing: dict[str, int] = {}
    for f in failures:
        missing[f.video_id] = missing.get(f.video_id, 0) + f.missing_rows
    found: dict[object, list[tuple[object, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row[1:])
    for video in store.plan(key.generation).shard(key).videos:
        mine = found.pop(video.video_id, [])
        if video.video_id in gone:
            continue
        if len(mine) + missing.get(video.video_id, 0) != video.num_clips:
            yield f"video {video.video_id}: {len(mine)} rows of {video.num_clips} planned"
        if clip is not None:
            expected = {(s.start_us, s.end_us) for s in clip_spans(video.start_us, video.end_us, clip)}
            strange = [m for m in mine if m not in expected]
            if strange and not video.unreadable:
                yield f"video {video.video_id}: clips that were not planned: {strange[:3]}"
    if found:
        yield f"rows of videos that are not in this shard's plan: {sorted(map(str, found))[:3]}"


def _strangers(store: ShardStore, planned: set[ShardKey]) -> list[str]:
    names = store.files.list(DATA_FOLDER)
    return [n for n in names if not n.endswith(".parquet") or ShardKey.parse(n[: -len(".parquet")]) not in planned]


def _planned_twice(store: ShardStore) -> list[str]:
    import numpy as np

    ids = []
    for plan in store.plans():
        if plan.header.reopens:
            continue
        for batch in plan.batches([store.kind.id_column, "shard"]):
            kept = batch.filter(pc.greater_equal(batch["shard"], 0)).column(0)
            ids.append(np.array(kept.to_pylist(), dtype="S32"))
    if not ids:
        return []
    values, counts = np.unique(np.concatenate(ids), return_counts=True)
    return [f"plan: {v.decode()} is planned {n} times" for v, n in zip(values, counts, strict=True) if n > 1][:10]


def _clip_spec(store: ShardStore) -> ClipSpec | None:
    body = store.document.spec.get("clip")
    return ClipSpec(**body) if store.kind.name == "targets" and body else None


def _count_videos(store: ShardStore) -> int:
    plans = store.plans()
    if len(plans) <= 1:
        return sum(p.header.videos for p in plans)
    ids: set[str] = set()
    for plan in plans:
        for batch in plan.batches([store.kind.id_column]):
            ids.update(batch.column(0).to_pylist())
    return len(ids)


def _reopened_missing(footers: list[ShardFooter], reopened: dict[int, frozenset[str]]) -> int:
    return sum(
        f.missing_rows for t in footers for f in t.failures if f.video_id in reopened.get(t.key.generation, ())
    )
