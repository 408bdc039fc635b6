"""What a new look at the videos adds to a store that is planned already.

Videos that are new get work. A video that is known and now has a further URI, another label, split or group
gets a row without work, which amends it: its URIs are added to those it has, and what the new look does not
say stays as it was. A URI under which other bytes lie now is taken from the videos that had it; one that has
none left is superseded: a row without URIs. A file that cannot be reached takes nothing, for it says nothing
of the bytes. A removed video gets nothing, whatever the manifest says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.known import ABOUT, Known, about_of, files_of, hash_text, id_array, ids_of, known_videos
from pipeline.plan import Batches, ShardFiller, auto_shard_clips, video_clips, with_work
from schemas.arrays import I64, Bools
from schemas.clip import ClipSpec
from schemas.video import VIDEOS_SCHEMA

__all__ = ["Known", "NextGeneration", "known_videos", "next_generation"]

_BATCH_ROWS = 16384


@dataclass(frozen=True)
class NextGeneration:
    """What a new generation would hold. Nothing is written yet.

    ``amended`` counts known videos of which something else is said now, ``superseded`` those that lost their
    last URI.
    """

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


def next_generation(
    videos: Batches,
    clip: ClipSpec,
    *,
    known: Known | None = None,
    removed: Iterable[str] = (),
    shard_clips: int | None = None,
    most_shard_clips: int | None = None,
    batch_size: int = 1,
) -> NextGeneration:
    """Decide what is new. ``videos`` has each video once."""
    look = _look_at(videos, clip, known if known is not None else Known.nothing(), removed)
    size = shard_clips or auto_shard_clips(look.new_clips, batch_size)
    size = min(size, most_shard_clips or size)

    def filler() -> ShardFiller:
        return ShardFiller(size, look.new_clips if shard_clips is None else None)

    return NextGeneration(
        new_videos=sum(int(m.sum()) for m in look.is_new),
        new_clips=look.new_clips,
        amended=sum(int(m.sum()) for m in look.is_amended) + len(look.curtailed_P),
        superseded=len(look.superseded_P),
        skipped_removed=look.skipped_removed,
        num_bytes=look.num_bytes,
        duration_us=look.duration_us,
        shard_clips=size,
        rows=lambda: _rows(videos, clip, filler(), look),
    )


@dataclass
class _Look:
    """What was seen: masks of each batch, and what it does to the known.

    ``position`` is that of each known video, ``taken_U`` marks the URIs that other bytes took.
    ``curtailed_P`` and ``superseded_P`` are positions of videos that were not seen and lost some or all of
    their URIs.
    """

    known: Known
    taken_U: Bools
    is_new: list[Bools] = field(default_factory=list)
    is_amended: list[Bools] = field(default_factory=list)
    position: list[I64] = field(default_factory=list)
    curtailed_P: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    superseded_P: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    new_clips: int = 0
    num_bytes: int = 0
    duration_us: int = 0
    skipped_removed: int = 0


def _look_at(videos: Batches, clip: ClipSpec, known: Known, removed: Iterable[str]) -> _Look:
    gone = np.sort(id_array(removed))
    look = _Look(known, np.zeros(len(known.uris_U), np.bool_))
    seen_M = np.zeros(len(known.ids_M), np.bool_)
    for batch in videos():
        ids = ids_of(batch["video_id"])
        at, found = known.find(ids)
        is_gone = np.isin(ids, gone)
        is_new = ~found & ~is_gone
        look.is_new.append(is_new)
        look.new_clips += int(video_clips(batch, clip)[is_new].sum())
        look.num_bytes += int(batch["num_bytes"].to_numpy()[is_new].sum())
        look.duration_us += int(batch["duration_us"].to_numpy()[is_new].sum())
        look.skipped_removed += int(is_gone.sum())
        look.is_amended.append(_compare(look, batch, at, found) & ~is_gone)
        look.position.append(np.where(found & ~is_gone, at, -1).astype(np.int32))
        seen_M[at[found]] = True
    if look.taken_U.any():
        _settle_losses(look, seen_M, np.isin(known.ids_M, gone))
    return look


def _compare(look: _Look, batch: pa.RecordBatch, at: I64, found: Bools) -> Bools:
    """Which known videos of a batch are spoken of anew: another word, or a URI that was not theirs. Notes in
    ``look.taken_U`` the URIs that hold other bytes now."""
    known = look.known
    if not len(known.ids_M):
        return np.zeros(batch.num_rows, np.bool_)
    said = about_of(batch)
    changed: Bools = ((said != 0) & (said != known.about_M3[at])).any(axis=1)
    parent = pc.list_parent_indices(batch["uris"]).to_numpy()
    hashes = hash_text(pc.list_flatten(batch["uris"]))
    which, held = known.holders(hashes)
    owner, video = known.owners_U[held], parent[which]
    is_held = np.zeros(len(hashes), np.bool_)
    is_held[which[owner == at[video]]] = True
    changed[parent[~is_held]] = True
    other_bytes = (known.files_M[owner] != files_of(batch)[video]) & ~_is_away(batch)[video]
    look.taken_U[held[other_bytes]] = True
    changed &= found
    return changed


def _is_away(batch: pa.RecordBatch) -> Bools:
    """Which videos could not be reached, so that nothing is known of their bytes."""
    away = np.zeros(batch.num_rows, np.bool_)
    column = batch["unreadable"]
    if column.null_count < len(column):
        for i, text in enumerate(column.to_pylist()):
            away[i] = text is not None and not json.loads(text)["permanent"]
    return away


def _settle_losses(look: _Look, seen_M: Bools, gone_M: Bools) -> None:
    """Amend the seen videos that lost a URI, and find those that were not seen."""
    known = look.known
    had = np.bincount(known.owners_U, minlength=len(seen_M))
    lost = np.bincount(known.owners_U[look.taken_U], minlength=len(seen_M))
    lost[gone_M] = 0
    for amended, position in zip(look.is_amended, look.position, strict=True):
        amended |= (position >= 0) & (lost[position] > 0)
    unseen = (lost > 0) & ~seen_M
    look.curtailed_P = np.flatnonzero(unseen & (lost < had))
    look.superseded_P = np.flatnonzero(unseen & (lost == had))


def _rows(videos: Batches, clip: ClipSpec, filler: ShardFiller, look: _Look) -> Iterator[pa.RecordBatch]:
    for batch in _chosen(videos, look.is_new):
        clips = video_clips(batch, clip)
        yield with_work(batch, clips, filler.assign(clips))
    seen = [p[m] for p, m in zip(look.position, look.is_amended, strict=True) if m.any()]
    if seen:
        positions = np.concatenate(seen)
        before, start = look.known.newest_rows(positions), 0
        for batch in _chosen(videos, look.is_amended):
            part = slice(start, start + batch.num_rows)
            start += batch.num_rows
            yield _without_work(_restate(look, batch, before[part], positions[part]))
    positions = np.concatenate([look.curtailed_P, look.superseded_P])
    if len(positions):
        before = look.known.newest_rows(positions)
        for start in range(0, len(positions), _BATCH_ROWS):
            part = slice(start, start + _BATCH_ROWS)
            yield _without_work(_curtail(look, before[part], positions[part]))


def _chosen(videos: Batches, masks: list[Bools]) -> Iterator[pa.RecordBatch]:
    if not any(mask.any() for mask in masks):
        return
    for batch, mask in zip(videos(), masks, strict=True):
        if mask.any():
            yield batch if mask.all() else batch.filter(pa.array(mask))


def _without_work(batch: pa.RecordBatch) -> pa.RecordBatch:
    return with_work(batch, np.zeros(batch.num_rows, np.int32), np.full(batch.num_rows, -1, np.int32))


def _restate(look: _Look, batch: pa.RecordBatch, before: pa.Table, positions: I64) -> pa.RecordBatch:
    """Videos as they are now, with the URIs and the words they had before where nothing newer is said."""
    uris = [
        [*now, *(u for u in old if u not in now)]
        for now, old in zip(batch["uris"].to_pylist(), _uris_left(look, before, positions), strict=True)
    ]
    columns = {name: pc.coalesce(batch[name], before[name].combine_chunks()) for name in ABOUT}
    return _replaced(batch, {"uris": pa.array(uris, pa.list_(pa.string())), **columns})


def _curtail(look: _Look, before: pa.Table, positions: I64) -> pa.RecordBatch:
    """Videos as they were, less the URIs they lost."""
    uris = pa.array(_uris_left(look, before, positions), pa.list_(pa.string()))
    return _replaced(before.combine_chunks().to_batches()[0], {"uris": uris})


def _uris_left(look: _Look, before: pa.Table, positions: I64) -> list[list[str]]:
    """The URIs that are in force for each video and that nobody took."""
    lists = before["uris"].combine_chunks()
    flat, parent = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    which, held = look.known.holders(hash_text(flat))
    mine = (look.known.owners_U[held] == positions[parent[which]]) & ~look.taken_U[held]
    out: list[list[str]] = [[] for _ in range(len(lists))]
    for i in np.unique(which[mine]).tolist():
        out[parent[i]].append(flat[i].as_py())
    return out


def _replaced(batch: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    arrays = [columns.get(name, batch[name]) for name in VIDEOS_SCHEMA.names]
    return pa.RecordBatch.from_arrays(arrays, schema=VIDEOS_SCHEMA)
