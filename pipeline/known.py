"""What a target store knows of each video: its newest plan row, boiled down to some 56 bytes.

The newest generation's row of a video is the one in force: a URI that is not in it is not the video's any
more. Several videos may hold one URI (segments of a file), and a URI may be held by videos of two files for a
while (a file that cannot be reached now, and the one that was there before).
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.store.plan_files import PlanFile
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64, U32, U64, Bools
from schemas.video import VIDEOS_SCHEMA

ABOUT = ("label", "split", "group")
_BLOCK = 1 << 16


def _no_rows(positions_P: I64) -> pa.Table:
    return VIDEOS_SCHEMA.empty_table()


@dataclass(frozen=True)
class Known:
    """M videos, sorted by id, and the U URIs that are in force, sorted by hash.

    ``about_M3`` hashes label, split and group (0 where none is said), ``owners_U`` is the position of the
    video that a URI belongs to. ``newest_rows`` reads the plan rows at some positions, in that order. The
    plan had ``generations`` when it was read.
    """

    ids_M: NDArray[np.bytes_]
    files_M: U64
    about_M3: U32
    uris_U: U64
    owners_U: NDArray[np.int32]
    newest_rows: Callable[[I64], pa.Table] = _no_rows
    generations: int = 0

    @classmethod
    def nothing(cls) -> Known:
        u64 = np.empty(0, np.uint64)
        return cls(np.empty(0, "S16"), u64, np.empty((0, 3), np.uint32), u64, np.empty(0, np.int32))

    def find(self, ids_N: NDArray[np.bytes_]) -> tuple[I64, Bools]:
        """Position of each id, and whether it is there."""
        if not len(self.ids_M):
            return np.zeros(len(ids_N), np.int64), np.zeros(len(ids_N), np.bool_)
        at = np.searchsorted(self.ids_M, ids_N).clip(max=len(self.ids_M) - 1)
        return at, self.ids_M[at] == ids_N

    def holders(self, uris_K: U64) -> tuple[I64, I64]:
        """Which of some URIs are in force for whom: pairs of an index in ``uris_K`` and one in ``uris_U``."""
        low = np.searchsorted(self.uris_U, uris_K, "left")
        count = np.searchsorted(self.uris_U, uris_K, "right") - low
        which = np.repeat(np.arange(len(uris_K)), count)
        return which, np.arange(len(which)) + np.repeat(low - (np.cumsum(count) - count), count)


def known_videos(store: ShardStore) -> Known:
    """Read all plan generations of a target store."""
    everything = store.plans()  # listed once: what is added meanwhile is for the next look
    plans = [plan for plan in everything if not plan.header.reopens]
    total = sum(plan.header.videos for plan in plans)
    if not total:
        return replace(Known.nothing(), generations=len(everything))
    ids, files, about = np.empty(total, "S16"), np.empty(total, np.uint64), np.empty((total, 3), np.uint32)
    uris, row_of_uri = [], []
    for start, batch in _planned(plans, ["video_id", "file_id", "uris", *ABOUT]):
        rows = slice(start, start + batch.num_rows)
        ids[rows], files[rows], about[rows] = ids_of(batch["video_id"]), files_of(batch), about_of(batch)
        uris.append(hash_text(pc.list_flatten(batch["uris"])))
        row_of_uri.append((pc.list_parent_indices(batch["uris"]).to_numpy() + start).astype(np.int32))
    newest = _last_of_each(ids)
    position_of_row = np.full(total, -1, np.int32)
    position_of_row[newest] = np.arange(len(newest), dtype=np.int32)
    owners, hashes = position_of_row[np.concatenate(row_of_uri)], np.concatenate(uris)
    del uris, row_of_uri, position_of_row
    ids = ids[newest]  # one after the other, so that the copies do not all stand beside the originals
    files = files[newest]
    about = about[newest]
    order = np.argsort(hashes)
    order = order[owners[order] >= 0]
    rows_at = partial(_rows_at, plans, newest)
    return Known(ids, files, about, hashes[order], owners[order], rows_at, len(everything))


def videos_in_force(store: ShardStore) -> pa.Table:
    """The videos that a target or frame store serves: each once, as the newest word on it says, in order of the ids.

    Without those that were removed, and those of which no URI holds the bytes any more.
    """
    known = known_videos(store)
    rows = known.newest_rows(np.arange(len(known.ids_M)))
    removed = pa.array(sorted(store.tombstones()), pa.string())
    served = pc.and_not(
        pc.greater(pc.list_value_length(rows["uris"]), 0), pc.is_in(rows["video_id"], removed)
    )
    return rows.filter(served)


def _last_of_each(ids_N: NDArray[np.bytes_]) -> NDArray[np.int32]:
    """Row of the last occurrence of each id, in the order of the ids."""
    order = np.argsort(ids_N, kind="stable").astype(np.int32)
    is_last = np.ones(len(order), np.bool_)
    for start in range(0, len(order) - 1, _BLOCK):  # in blocks, for a sorted copy of all ids is large
        block = ids_N[order[start : start + _BLOCK + 1]]
        is_last[start : start + len(block) - 1] = block[1:] != block[:-1]
    return order[is_last]


def ids_of(column: pa.Array) -> NDArray[np.bytes_]:
    """Ids of 32 hex digits as 16 bytes each, without Python strings in between."""
    if not len(column):
        return np.empty(0, "S16")
    fixed = column.cast(pa.binary()).cast(pa.binary(32))
    digits = memoryview(fixed.buffers()[1])[32 * fixed.offset : 32 * (fixed.offset + len(fixed))]
    return np.frombuffer(binascii.unhexlify(digits), "S16")


def id_array(ids: Iterable[str]) -> NDArray[np.bytes_]:
    """`ids_of` for Python strings."""
    return ids_of(pa.array(list(ids), pa.string()))


def files_of(batch: pa.RecordBatch) -> U64:
    """A number for each video's file."""
    return ids_of(batch["file_id"]).view(np.uint64)[::2]


def about_of(batch: pa.RecordBatch) -> U32:
    """Hashes of label, split and group of each video, 0 where nothing is said; (N, 3)."""
    return np.stack([hash_text(batch[name]) >> np.uint64(32) for name in ABOUT], axis=1).astype(np.uint32)


def hash_text(column: pa.Array) -> U64:
    """A 64-bit hash of each string; 0 for null."""
    encoded = column.dictionary_encode()
    words = encoded.dictionary.cast(pa.binary()).to_pylist()
    digests = b"".join(hashlib.blake2b(word, digest_size=8).digest() for word in words)
    table = np.append(np.frombuffer(digests, "<u8"), np.uint64(0))
    return np.asarray(table[encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)])


def group_hashes(table: pa.Table) -> U64:
    """A hash of each row's group, or of its file where it has none: segments of one film stay together. (N,)"""
    named = pc.binary_join_element_wise("group", table["group"], ":")
    alone = pc.binary_join_element_wise("file", table["file_id"], ":")
    return hash_text(pc.coalesce(named, alone).combine_chunks())


def _planned(plans: Sequence[PlanFile], columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Plan rows in batches, each with the number of its first row."""
    start = 0
    for plan in plans:
        for batch in plan.batches(columns):
            yield start, batch
            start += batch.num_rows


def _rows_at(plans: Sequence[PlanFile], newest_M: NDArray[np.int32], positions_P: I64) -> pa.Table:
    rows_P = newest_M[positions_P]
    order = np.argsort(rows_P)
    wanted, picked = rows_P[order], []
    for start, batch in _planned(plans, VIDEOS_SCHEMA.names):
        low, high = np.searchsorted(wanted, [start, start + batch.num_rows])
        if low < high:
            picked.append(batch.take(pa.array(wanted[low:high] - start)))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.Table.from_batches(picked, VIDEOS_SCHEMA).take(pa.array(back)).combine_chunks()
