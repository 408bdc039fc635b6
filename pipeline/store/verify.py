"""Prove a store: no gap, no duplicate, no stranger.

A store is *clean* when every file under ``data/`` is whole, of this spec and this plan, holds just the clips
that the plan asks for, each once, sorted, and accounts in its footer for those that are missing. It is
*complete* when besides no shard is pending. Rows that a late writer brought back after a removal are reported
as stale: mending (`prune`) removes them, and readers do not see them.

The keys and footers are read, and with ``contents`` every value (against the checksums of its page).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.counts import StoreCounts, count, count_footers
from pipeline.store.data_files import DATA_FOLDER, data_name, key_of
from pipeline.store.footer import ShardFooter
from pipeline.store.in_force import InForce
from pipeline.store.plan_files import PlanFile
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import CorruptStoreError
from schemas.shard import ShardKey
from schemas.video import Video

__all__ = ["StoreCounts", "VerifyReport", "count", "verify"]

_READERS = 4


@dataclass(frozen=True)
class VerifyReport:
    """``problems`` are contradictions; ``stale`` are shards with rows that no longer count and can be swept.
    ``counts`` are of the shards that could be read."""

    counts: StoreCounts
    problems: tuple[str, ...]
    stale: tuple[ShardKey, ...]

    @property
    def clean(self) -> bool:
        return not self.problems and not self.stale


@dataclass
class _Finding:
    """What was found in one data file."""

    problems: list[str] = field(default_factory=list)
    stale: bool = False
    footer: ShardFooter | None = None


def verify(store: ShardStore, *, contents: bool = False) -> VerifyReport:
    """Hold every data file against the plan."""
    committed = store.committed()  # before the plans: what was committed was planned
    try:
        plans, in_force = store.plans(), store.in_force()
        problems = list(_plan_problems(plans))
    except CorruptStoreError as e:
        return VerifyReport(StoreCounts(), (str(e),), ())
    planned = {key for plan in plans for key in plan.shard_keys()}
    names = store.files.list(DATA_FOLDER)
    problems += [f"{DATA_FOLDER}/{n}: not a file of the plan" for n in names if key_of(n) not in planned]
    clip = _clip_spec(store)
    keys = sorted(committed & planned)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda key: _verify_shard(store, key, in_force, clip, contents), keys))
    problems += [p for f in found for p in f.problems]
    counts = count_footers(store, (f.footer for f in found if f.footer is not None), in_force)
    return VerifyReport(
        counts, tuple(problems), tuple(k for k, f in zip(keys, found, strict=True) if f.stale)
    )


def _verify_shard(
    store: ShardStore, key: ShardKey, in_force: InForce, clip: ClipSpec | None, contents: bool
) -> _Finding:
    name, kind = data_name(key), store.kind
    columns = [*kind.sort_columns, "end_us"] if clip else list(kind.sort_columns)
    try:
        table, footer, schema = store.read_data(key, None if contents else columns, checksums=contents)
    except (CorruptStoreError, FileNotFoundError) as e:
        return _Finding([f"{name}: {e}"])
    plan = store.plan(key.generation)
    videos = plan.shard(key).videos
    clips = {v.video_id: v.num_clips for v in videos}
    problems = list(_footer_problems(store, key, plan, footer, sum(clips.values()), table.num_rows))
    if not schema.equals(kind.data_schema(store.document.spec)):
        problems.append(f"{name}: its columns are not those of the spec")
    if absent := [c for c in columns if c not in table.column_names]:
        problems.append(f"{name}: no column {absent[0]!r}")
        return _Finding(problems, False, footer)
    table = table.select(columns).combine_chunks()
    removed, reopened = in_force.split(key.generation, clips)
    gone = removed | reopened
    ids = pa.array(sorted(clips), pa.string())
    at = pc.index_in(table[kind.id_column], value_set=ids)
    strangers = pc.unique(table[kind.id_column].filter(pc.is_null(at))).to_pylist()
    if strangers:
        problems.append(f"{name}: rows of videos that are not in this shard's plan: {strangers[:3]}")
        table, at = table.filter(pc.is_valid(at)), at.drop_null()
    at_N = at.to_numpy()
    if not _is_sorted(at_N, table["start_us"].to_numpy() if "start_us" in columns else None):
        problems.append(
            f"{name}: rows are not sorted by {', '.join(kind.sort_columns)}, or one is there twice"
        )
        order = np.argsort(at_N, kind="stable")
        table, at_N = table.take(order), at_N[order]
    missing: dict[str, int] = {}
    for f in footer.failures:
        missing[f.video_id] = missing.get(f.video_id, 0) + f.missing_rows
    if unknown := missing.keys() - clips.keys():
        problems.append(
            f"{name}: failures of videos that are not in this shard's plan: {sorted(unknown)[:3]}"
        )
    live = [v for v in videos if v.video_id not in gone]
    problems += [f"{name}: {p}" for p in _video_problems(live, ids, at_N, table, missing, clip)]
    present = {ids[int(i)].as_py() for i in np.unique(at_N)} | missing.keys()
    dropped = (sum(clips[i] for i in removed), sum(clips[i] for i in reopened))
    is_stale = bool(present & gone) or dropped != (footer.tombstoned, footer.reopened)
    return _Finding(problems, is_stale, footer)


def _footer_problems(
    store: ShardStore, key: ShardKey, plan: PlanFile, footer: ShardFooter, planned: int, rows: int
) -> Iterator[str]:
    name, document = data_name(key), store.document
    if footer.fingerprint != document.fingerprint or footer.kind != document.kind:
        yield f"{name}: of fingerprint {footer.fingerprint}, the store's is {document.fingerprint}"
    if footer.key != key:
        yield f"{name}: it is the file of shard {footer.key}"
    if footer.plan_hash != plan.digest:
        yield f"{name}: made from another plan ({footer.plan_hash}) than {plan.generation}'s {plan.digest}"
    elif footer.planned != planned:
        yield f"{name}: its footer says {footer.planned} planned, the plan {planned}"
    if footer.rows != rows:
        yield f"{name}: {rows} rows, its footer says {footer.rows}"
    if not footer.balanced:
        yield (
            f"{name}: {footer.rows} rows + {footer.missing} missing + {footer.tombstoned} removed + "
            f"{footer.reopened} reopened is not {footer.planned} planned"
        )


def _is_sorted(at_N: np.ndarray, start_us_N: np.ndarray | None) -> bool:
    """Whether rows, given as positions of their ids in the sorted ids, ascend strictly by (id, start)."""
    step = np.diff(at_N)
    within = np.zeros(len(step), np.bool_) if start_us_N is None else np.diff(start_us_N) > 0
    return bool(np.all((step > 0) | ((step == 0) & within)))


def _video_problems(
    videos: list[Video],
    ids: pa.Array,
    at_N: np.ndarray,
    table: pa.Table,
    missing: Mapping[str, int],
    clip: ClipSpec | None,
) -> Iterator[str]:
    """Videos without the rows they should have. ``at_N`` ascends: a video's rows stand together."""
    place = {v: i for i, v in enumerate(ids.to_pylist())}
    bounds = np.searchsorted(at_N, np.arange(len(place) + 1))
    spans_N2 = np.stack([table[c].to_numpy() for c in ("start_us", "end_us")], axis=1) if clip else None
    for video in videos:
        low, high = bounds[place[video.video_id]], bounds[place[video.video_id] + 1]
        if high - low + missing.get(video.video_id, 0) != video.num_clips:
            yield f"video {video.video_id}: {high - low} rows of {video.num_clips} planned"
        if clip is None or spans_N2 is None or video.unreadable:
            continue
        expected = [(s.start_us, s.end_us) for s in clip_spans(video.start_us, video.end_us, clip)]
        mine = list(map(tuple, spans_N2[low:high].tolist()))
        if mine != expected and (strange := [m for m in mine if m not in set(expected)]):
            yield f"video {video.video_id}: clips that were not planned: {strange[:3]}"


def _plan_problems(plans: list[PlanFile]) -> Iterator[str]:
    """Videos that get work twice, or anew without having been planned before."""
    known = np.empty(0, "S32")
    for plan in plans:
        ids = np.sort(
            np.concatenate([np.empty(0, "S32"), *map(_working_ids, plan.batches([plan.id_column, "shard"]))])
        )
        twice = list(ids[1:][ids[1:] == ids[:-1]])
        before = np.isin(ids, known)
        twice += [] if plan.header.reopens else list(ids[before])
        yield from (f"plan: {v.decode()} is planned twice (generation {plan.generation})" for v in twice[:10])
        if plan.header.reopens:
            strangers = ids[~before][:10]
            yield from (
                f"plan: {v.decode()} is reopened in {plan.generation}, never planned before"
                for v in strangers
            )
        known = np.union1d(known, ids)


def _working_ids(batch: pa.RecordBatch) -> np.ndarray:
    return np.array(batch.filter(pc.greater_equal(batch["shard"], 0)).column(0).to_pylist(), "S32")


def _clip_spec(store: ShardStore) -> ClipSpec | None:
    body = store.document.spec.get("clip")
    # Where clips begin and end does not depend on the frames in them, which would each cost time here.
    return ClipSpec(**{**body, "num_frames": 1}) if store.kind.of_clips and body else None
