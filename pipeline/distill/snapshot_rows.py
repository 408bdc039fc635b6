"""The rows of a snapshot: those of a frame store, its files in order, and where each key is among them.

Shapes: R rows, V videos, N rows of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.known import ids_of
from pipeline.store.data_files import read_groups
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64, Bools
from schemas.errors import RetryableError

ROW = np.dtype(
    [
        ("video", "i4"),
        ("start_us", "i8"),
        ("end_us", "i8"),
        ("label", "i4"),
        ("split", "i2"),
        ("group", "u8"),
        ("teachers", "u1"),
        ("damaged", "?"),
        ("shown", "?"),
    ]
)
"""``video`` is a number, ``split`` one in the snapshot's list, ``label`` a class; -1 is none. ``group`` is a hash
of the group's name, or of the file's id where it has none: rows of one group stay together. ``teachers`` counts
those that have targets; ``shown`` is false for rows that no longer counted."""

BLOCK = np.dtype(
    [
        ("generation", "i4"),
        ("shard", "i4"),
        ("part", "i4"),
        ("first", "i8"),
        ("rows", "i4"),
        ("bytes", "i8"),
        ("writer", "S32"),
    ]
)
"""A row group of the frame store, and its rows of the snapshot. It holds whole videos."""

_START_BITS = 44  # of a start in microseconds: 200 days


@dataclass(frozen=True)
class Places:
    """Where the rows of V videos are, sorted by id: they stand together, sorted by start."""

    ids_V: NDArray[np.bytes_]
    first_V: I64
    count_V: I64

    def rows(self, ids_N: NDArray[np.bytes_], starts_N: I64, all_starts_R: I64) -> I64:
        """The row of each key; -1 where there is none. (N,)"""
        out_N = np.full(len(ids_N), -1, np.int64)
        if not len(self.ids_V) or not len(ids_N):
            return out_N
        at_N = np.searchsorted(self.ids_V, ids_N).clip(max=len(self.ids_V) - 1)
        here_N = self.ids_V[at_N] == ids_N
        videos_U, which_N = np.unique(at_N[here_N], return_inverse=True)
        if not len(videos_U):
            return out_N
        count_U = self.count_V[videos_U]
        rank_C = np.repeat(np.arange(len(videos_U)), count_U)
        begin_U = np.cumsum(count_U) - count_U
        row_C = self.first_V[videos_U][rank_C] + np.arange(len(rank_C)) - begin_U[rank_C]
        key_C = (rank_C << _START_BITS) + all_starts_R[row_C]
        wanted = (which_N.reshape(-1) << _START_BITS) + starts_N[here_N]
        found = np.searchsorted(key_C, wanted).clip(max=len(key_C) - 1)
        out_N[here_N] = np.where(key_C[found] == wanted, row_C[found], -1)
        return out_N


def lay_out_rows(folder: Path, frames: ShardStore) -> tuple[Any, Places]:
    """Blocks, and rows with their keys, of the frame store."""
    footers = list(frames.footers())
    counts = frames.in_force()
    blocks: list[tuple[int, int, int, int, int, int, str]] = []
    videos: list[tuple[NDArray[np.bytes_], I64, I64]] = []
    total = sum(footer.rows for footer in footers)
    rows_R = np.lib.format.open_memmap(folder / "rows.npy", "w+", ROW, (total,))
    first = 0
    for footer in footers:
        key = footer.key
        groups, read = read_groups(frames.files, key, ["video_id", "start_us", "end_us", "damaged"])
        if read.writer != footer.writer:
            raise RetryableError(f"{frames.url}: shard {key} was rewritten at this moment; run again")
        gone = ids_of(pa.array(sorted(counts.hidden(key.generation, _ids_in(groups))), pa.string()))
        for part, (table, size) in enumerate(groups):
            n = table.num_rows
            if not n:
                continue
            blocks.append((key.generation, key.number, part, first, n, size, footer.writer))
            rows_N, ids_N = np.zeros(n, ROW), ids_of(table["video_id"].combine_chunks())
            for name in ("video", "label", "split"):
                rows_N[name] = -1
            for name in ("start_us", "end_us", "damaged"):
                rows_N[name] = table[name].to_numpy()
            rows_N["shown"] = ~np.isin(ids_N, gone)
            rows_R[first : first + n] = rows_N
            videos.append(_runs(ids_N, rows_N["shown"], first))
            first += n
    np.save(folder / "blocks.npy", np.array(blocks, BLOCK))
    ids, firsts, lengths = (
        (np.concatenate(part) for part in zip(*videos, strict=True))
        if videos
        else (np.empty(0, "S16"), np.empty(0, np.int64), np.empty(0, np.int64))
    )
    order = np.argsort(ids, kind="stable")
    places = Places(ids[order], firsts[order], lengths[order])
    np.save(folder / "videos.npy", places.ids_V)
    for number, (start, length) in enumerate(
        zip(places.first_V.tolist(), places.count_V.tolist(), strict=True)
    ):
        rows_R["video"][start : start + length] = number
    return rows_R, places


def _ids_in(groups: Sequence[tuple[pa.Table, int]]) -> set[str]:
    return {i for table, _ in groups for i in pc.unique(table["video_id"]).to_pylist()}


def _runs(ids_N: NDArray[np.bytes_], shown_N: Bools, first: int) -> tuple[NDArray[np.bytes_], I64, I64]:
    """Id, first row and number of rows of each video of a block that is shown."""
    starts = np.flatnonzero(np.concatenate([[True], ids_N[1:] != ids_N[:-1]]))
    lengths = np.diff(np.append(starts, len(ids_N)))
    shown = shown_N[starts]
    return ids_N[starts][shown], starts[shown] + first, lengths[shown]
