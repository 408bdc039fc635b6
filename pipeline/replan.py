"""What a new look at the videos adds to a store that is planned already.

Videos that are new get work. A video that is known and now has a further URI, another label, split or group gets a
row without work, which amends it: its URIs are added to those it has, and what the new look does not say stays as it
was. A video all of whose URIs now hold other bytes is superseded: a row without URIs. A removed video gets nothing,
whatever the manifest says.

Known videos are kept as fixed-size arrays (some 56 bytes each), not as Python objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.plan import Batches, ShardFiller, auto_shard_clips, video_clips, with_work
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec
from schemas.video import VIDEOS_SCHEMA

_ABOUT = ["label", "split", "group"]


@dataclass(frozen=True)
class Known:
    """Videos in a store, newest generation's word: sorted ids (M,), hashes of label, split and group of each (M, 3; 0
    where none is said), and the hash (U,) and owner's position (U,) of every URI that is in force, sorted by hash.
    ``rows_of`` reads the newest plan rows of some ids."""

    ids_M: NDArray[np.bytes_]
    about_M3: NDArray[np.uint64]
    uris_U: NDArray[np.uint64]
    owner_U: NDArray[np.int64]
    rows_of: Callable[[set[str]], dict[str, dict[str, Any]]] = lambda _ids: {}

    @classmethod
    def nothing(cls) -> Known:
        u64 = np.empty(0, np.uint64)
        return cls(np.empty(0, "S32"), np.empty((0, 3), np.uint64), u64, np.empty(0, np.int64))


@dataclass(frozen=True)
class NextGeneration:
    """What a new generation would hold. Nothing is written yet."""

    new_videos: int
    new_clips: int
    amended: int
    superseded: int
    skipped_removed: int
    num_bytes: int
    duration_us: int
    shard_clips: int
    rows: Batches

    @property
    def is_empty(self) -> bool:
        return not (self.new_videos or self.amended or self.superseded)


def known_videos(store: ShardStore) -> Known:
    """Read all plan generations of a target store."""
    ids, about, uris, owners = [], [], [], []
    for plan in store.plans():
        if plan.header.reopens:
            continue
        for batch in plan.batches(["video_id", "uris", *_ABOUT]):
            ids.append(_ids(batch))
            about.append(_about(batch))
            for uri_list in batch["uris"].to_pylist():
                uris.append(np.array([_hash(u) for u in uri_list], np.uint64))
            owners.append(np.diff(batch["uris"].offsets.to_numpy()))
    if not ids:
        return Known.nothing()
    all_ids, all_about = np.concatenate(ids), np.concatenate(about)
    # The last row of an id is in force: unique() keeps the first, so look from the end.
    unique, last = np.unique(all_ids[::-1], return_index=True)
    last = len(all_ids) - 1 - last
    row_of_uri = np.repeat(np.arange(len(all_ids)), np.concatenate(owners))
    in_force = np.isin(row_of_uri, last)
    flat = np.concatenate(uris) if uris else np.empty(0, np.uint64)
    flat, row_of_uri = flat[in_force], row_of_uri[in_force]
    order = np.argsort(flat, kind="stable")
    return Known(unique, all_about[last], flat[order], np.searchsorted(unique, all_ids[row_of_uri[order]]), partial(_newest_rows, store))


def _newest_rows(store: ShardStore, ids: set[str]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for plan in store.plans():
        for batch in plan.batches(["video_id", "uris", *_ABOUT]):
            for row in batch.filter(pc.is_in(batch["video_id"], value_set=wanted)).to_pylist():
                out[row["video_id"]] = row
    return out


def next_generation(
    videos: Batches,
    clip: ClipSpec,
    *,
    known: Known | None = None,
    removed: Iterable[str] = (),
    shard_clips: int | None = None,
) -> NextGeneration:
    """Decide what is new."""
    known = known if known is not None else Known.nothing()
    gone = np.array(sorted(removed), "S32")
    ids, clips, num_bytes, durations, changed, lost = [], [], [], [], [], []
    for batch in videos():
        batch_ids = _ids(batch)
        at, found = _find(known.ids_M, batch_ids)
        ids.append(batch_ids)
        clips.append(video_clips(batch, clip))
        num_bytes.append(batch["num_bytes"].to_numpy())
        durations.append(batch["duration_us"].to_numpy())
        if len(known.ids_M):
            said = _about(batch)
            differs = ((said != 0) & (said != known.about_M3[at])).any(axis=1)
            has_new_uri, taken = _compare_uris(known, batch, batch_ids)
            changed.append(found & (differs | has_new_uri))
            lost.append(taken)
        else:
            changed.append(found)
    if not ids:
        return NextGeneration(0, 0, 0, 0, 0, 0, 0, 0, lambda: ())
    ids_N, clips_N = np.concatenate(ids), np.concatenate(clips)
    is_gone = np.isin(ids_N, gone)
    is_new = ~_find(known.ids_M, ids_N)[1] & ~is_gone
    is_amended = np.concatenate(changed) & ~is_gone
    superseded = _superseded(known, lost, ids_N[is_amended | is_new])
    total = int(clips_N[is_new].sum())
    size = shard_clips or auto_shard_clips(total)
    return NextGeneration(
        new_videos=int(is_new.sum()),
        new_clips=total,
        amended=int(is_amended.sum()),
        superseded=len(superseded),
        skipped_removed=int(is_gone.sum()),
        num_bytes=int(np.concatenate(num_bytes)[is_new].sum()),
        duration_us=int(np.concatenate(durations)[is_new].sum()),
        shard_clips=size,
        rows=lambda: _rows(videos, clip, size, is_new, is_amended, superseded, known),
    )


def _rows(
    videos: Batches,
    clip: ClipSpec,
    shard_clips: int,
    is_new: NDArray[np.bool_],
    is_amended: NDArray[np.bool_],
    superseded: list[str],
    known: Known,
) -> Iterator[pa.RecordBatch]:
    filler = ShardFiller(shard_clips)
    for mask, has_work in ((is_new, True), (is_amended, False)):
        at = 0
        if not mask.any():
            continue
        for batch in videos():
            part = mask[at : at + batch.num_rows]
            at += batch.num_rows
            if not part.any():
                continue
            chosen = batch if part.all() else batch.filter(pa.array(part))
            n = chosen.num_rows
            if not has_work:
                chosen = _restate(chosen, known)
            clips = video_clips(chosen, clip) if has_work else np.zeros(n, np.int32)
            yield with_work(chosen, clips, filler.assign(clips) if has_work else np.full(n, -1, np.int32))
    if superseded:
        rows = [{**_EMPTY, "video_id": i, "file_id": i} for i in superseded]
        batch = pa.RecordBatch.from_pylist(rows, VIDEOS_SCHEMA)
        n = len(rows)
        yield with_work(batch, np.zeros(n, np.int32), np.full(n, -1, np.int32))


_EMPTY = {
    "uris": [],
    "duration_us": 0,
    "num_bytes": 0,
    "width": 0,
    "height": 0,
    "fps": 0.0,
    "codec": "",
    "container": "",
}


def _ids(batch: pa.RecordBatch) -> NDArray[np.bytes_]:
    """The ids of a batch as an array of 32 bytes each, without Python strings in between."""
    column = batch["video_id"].cast(pa.binary())
    fixed = column.cast(pa.binary(32))
    return np.frombuffer(fixed.buffers()[1], "S32", count=len(fixed), offset=32 * fixed.offset).copy()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _about(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """Hashes of label, split and group of each video; 0 where nothing is said; (N, 3)."""
    columns = [[0 if v is None else _hash(v) for v in batch[n].to_pylist()] for n in _ABOUT]
    return np.array(columns, np.uint64).T


def _restate(batch: pa.RecordBatch, known: Known) -> pa.RecordBatch:
    """Videos as they are now, with the URIs and the words they had before where nothing newer is said."""
    rows = batch.to_pylist()
    before = known.rows_of({row["video_id"] for row in rows})
    for row in rows:
        old = before[row["video_id"]]
        row["uris"] += [u for u in old["uris"] if u not in row["uris"]]
        row.update({name: old[name] for name in _ABOUT if row[name] is None})
    return pa.RecordBatch.from_pylist(rows, batch.schema)


def _find(sorted_M: NDArray[np.bytes_], wanted_N: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Position of each wanted value in a sorted array, and whether it is there."""
    if not len(sorted_M):
        return np.zeros(len(wanted_N), np.int64), np.zeros(len(wanted_N), np.bool_)
    at = np.searchsorted(sorted_M, wanted_N).clip(max=len(sorted_M) - 1)
    return at, sorted_M[at] == wanted_N


def _compare_uris(
    known: Known, batch: pa.RecordBatch, ids_N: NDArray[np.bytes_]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which videos have a URI that is not in force for them (N,), and the positions in ``known.uris_U`` of URIs that
    now belong to another video."""
    lists = batch["uris"]
    flat = np.array([_hash(u) for u in pc.list_flatten(lists).to_pylist()], np.uint64)
    parent = pc.list_parent_indices(lists).to_numpy()
    is_new = np.zeros(batch.num_rows, np.bool_)
    if not len(flat) or not len(known.uris_U):
        is_new[parent] = True
        return is_new, np.empty(0, np.int64)
    at = np.searchsorted(known.uris_U, flat).clip(max=len(known.uris_U) - 1)
    same_uri = known.uris_U[at] == flat
    same_owner = known.ids_M[known.owner_U[at]] == ids_N[parent]
    is_new[parent[~(same_uri & same_owner)]] = True
    return is_new, at[same_uri & ~same_owner]


def _superseded(known: Known, lost: list[NDArray[np.int64]], restated: NDArray[np.bytes_]) -> list[str]:
    """Known videos that lost every URI in force; one that is restated with new URIs is not."""
    if not lost or not sum(map(len, lost)):
        return []
    gone = np.unique(np.concatenate(lost))
    had = np.bincount(known.owner_U, minlength=len(known.ids_M))
    went = np.bincount(known.owner_U[gone], minlength=len(known.ids_M))
    hit = known.ids_M[(went > 0) & (went >= had)]
    return [i.decode() for i in hit if i not in set(restated.tolist())]
