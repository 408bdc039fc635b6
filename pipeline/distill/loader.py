"""Batches for training: frames from the kept sheets, targets from the snapshot, in the order of
`pipeline.distill.order`.

What is read and decoded ahead is bounded: one window of blocks, and a few batches.

Shapes: N clips, T frames, H height, W width, C colours, K classes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.order import Blocks, Window, draws, epoch_windows, num_steps
from pipeline.distill.ranks import ALONE, Ranks
from pipeline.distill.targets import TargetReader
from pipeline.distill.windows import joined_to_next, shifted
from pipeline.sheets import decode_sheet
from pipeline.store.data_files import read_group
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64, Bools, Float32
from schemas.errors import CorruptStoreError
from schemas.frames import FrameSpec

WINDOW_BYTES = 64 << 20
"""Of the frames that are read and shuffled together, as they are kept."""

_READ_AHEAD = 4
_THREADS = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Augmentation:
    """What is done to clips while training. ``mirror_classes`` is the class that each class is in a mirror, None where
    nothing may be mirrored; ``shift`` moves windows in time, and their targets with them."""

    shift: bool = False
    mirror_classes: tuple[int, ...] | None = None


_AS_IT_IS = Augmentation()


@dataclass(frozen=True)
class Batch:
    """One step's clips and what the teachers say of them: ``probs_NK`` of all classes, or with top-k targets (N, J)
    of the classes ``kept_NJ``. ``label_N`` is -1 where there is none."""

    step: int
    frames_NTHWC: NDArray[np.uint8]
    probs_NK: Float32
    label_N: NDArray[np.int64]
    kept_NJ: NDArray[np.int64] | None = None


class Loader:
    """Reads rows of a snapshot and of the frame store that it was taken from."""

    def __init__(self, targets: TargetReader, frames: ShardStore, ranks: Ranks = ALONE) -> None:
        self._snapshot, self._targets, self._frames = targets.snapshot, targets, frames
        self._ranks = ranks
        blocks_B, rows_R = self._snapshot.blocks_B, self._snapshot.rows_R
        self._blocks = Blocks(*(blocks_B[name].astype(np.int64) for name in ("first", "rows", "bytes")))
        length_us = FrameSpec(**frames.document.spec).clip.length_us
        # Of top-k targets "the rest" is not of the same classes in both rows.
        self._joined_R = (
            np.zeros(len(rows_R), np.bool_)
            if targets.has_kept_only
            else joined_to_next(rows_R, self._snapshot.usable_R, length_us)
        )

    def epoch(
        self,
        chosen_R: Bools,
        *,
        seed: int,
        epoch: int,
        batch_size: int,
        augment: Augmentation,
        skip_steps: int = 0,
    ) -> Iterator[Batch]:
        """The batches of an epoch over the chosen rows, from step ``skip_steps`` on; what is left over is dropped.

        Of several ranks each gets a part of every batch, and all parts are of one size.
        """
        steps = num_steps(int(chosen_R.sum()), batch_size)
        rank, world = self._ranks.rank, self._ranks.world
        size = min(batch_size, int(chosen_R.sum()) // world * world)

        def steps_ahead() -> Iterator[Batch]:
            left = np.empty(0, np.int64)
            sheets: dict[int, bytes] = {}
            step = skip_steps
            windows = epoch_windows(
                self._blocks,
                chosen_R,
                seed=seed,
                epoch=epoch,
                window_bytes=WINDOW_BYTES,
                skip=skip_steps * size,
            )
            first = True
            for before, window in windows:
                kept = {row: sheets[row] for row in self._with_next(left) if row in sheets}
                sheets = kept | self._read(window)
                seen = skip_steps * size - before if first else 0
                first = False
                rows = np.concatenate([left, window.rows_N[seen:]])
                while len(rows) >= size and step < steps:
                    drawn = self._draw(draws(seed, epoch, step), rows[:size], augment)
                    mine = slice(rank, size, world)
                    yield self._batch(step, rows[mine], sheets, augment, drawn[0][mine], drawn[1][mine])
                    rows, step = rows[size:], step + 1
                left = rows

        yield from ahead(steps_ahead(), _READ_AHEAD)

    def in_order(self, chosen_R: Bools, batch_size: int) -> Iterator[tuple[I64, Batch]]:
        """The chosen rows as they stand, unchanged, each once: their numbers, and the batch."""

        def batches() -> Iterator[tuple[I64, Batch]]:
            step = 0
            for block, (first, n) in enumerate(zip(self._blocks.first_B, self._blocks.rows_B, strict=True)):
                rows = np.flatnonzero(chosen_R[first : first + n]) + first
                if not len(rows):
                    continue
                sheets = self._read(Window(np.array([block]), rows))
                for start in range(0, len(rows), batch_size):
                    part = rows[start : start + batch_size]
                    nothing = np.zeros(len(part), np.int64)
                    yield part, self._batch(step, part, sheets, _AS_IT_IS, nothing, nothing > 0)
                    step += 1

        yield from ahead(batches(), _READ_AHEAD)

    def _with_next(self, rows: I64) -> list[int]:
        return sorted({*rows.tolist(), *(rows[self._joined_R[rows]] + 1).tolist()})

    def _read(self, window: Window) -> dict[int, bytes]:
        """Sheets of the chosen rows of a window, and of those that they are joined to."""
        wanted = set(self._with_next(window.rows_N))
        found: dict[int, bytes] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for first, sheets in pool.map(self._read_block, window.blocks.tolist()):
                found.update({first + i: s for i, s in enumerate(sheets) if first + i in wanted})
        return found

    def _read_block(self, block: int) -> tuple[int, list[bytes]]:
        key, part = self._snapshot.key(block)
        b = self._snapshot.blocks_B[block]
        read = read_group(self._frames.files, key, part, ["sheet"])
        first, n = int(b["first"]), int(b["rows"])
        if read is None or read[1].writer.encode() != b["writer"] or read[0].num_rows != n:
            raise CorruptStoreError(
                f"{self._frames.url}: shard {key} was rewritten since training began (a removal, a retry): begin "
                "the same command again, which learns from what is there now"
            )
        return first, read[0]["sheet"].to_pylist()

    def _draw(self, rng: np.random.Generator, rows_N: I64, augment: Augmentation) -> tuple[I64, Bools]:
        """By how many frames each clip is shifted, and whether it is mirrored. Both are drawn whether used or not."""
        offset_N, coin_N = (
            rng.integers(0, self._snapshot.num_frames, len(rows_N)),
            rng.random(len(rows_N)) < 0.5,
        )
        shifted_N = self._joined_R[rows_N] & augment.shift
        return np.where(shifted_N, offset_N, 0), coin_N & (augment.mirror_classes is not None)

    def _batch(
        self,
        step: int,
        rows_N: I64,
        sheets: Mapping[int, bytes],
        augment: Augmentation,
        offset_N: I64,
        mirrored_N: Bools,
    ) -> Batch:
        batch = self._look_up(step, rows_N, sheets, offset_N)
        if augment.mirror_classes is not None:
            mirror(batch, mirrored_N, np.array(augment.mirror_classes))
        return batch

    def _look_up(self, step: int, rows_N: I64, sheets: Mapping[int, bytes], offset_N: I64) -> Batch:
        """Frames and targets of windows that start so many frames into some rows' clips."""
        t, frames = self._snapshot.num_frames, self._frames_at(rows_N, sheets, offset_N)
        label_N = self._snapshot.rows_R["label"][rows_N].astype(np.int64)
        if self._targets.has_kept_only:
            kept_NJ, probs_NJ = self._targets.kept(rows_N)
            return Batch(step, frames, probs_NJ, label_N, kept_NJ)
        probs_NK = self._targets.dense(rows_N)
        if len(moved := np.flatnonzero(offset_N)):
            following = self._targets.dense(rows_N[moved] + 1)
            probs_NK[moved] = shifted(
                probs_NK[moved], following, offset_N[moved], t, self._targets.multi_label
            )
        return Batch(step, frames, probs_NK, label_N)

    def _frames_at(self, rows_N: I64, sheets: Mapping[int, bytes], offset_N: I64) -> NDArray[np.uint8]:
        """Frames (N, T, H, W, 3) of such windows."""
        t = self._snapshot.num_frames
        pairs = zip(rows_N.tolist(), offset_N.tolist(), strict=True)
        return np.stack([_frames_of(sheets, row, offset, t) for row, offset in pairs])


def _frames_of(sheets: Mapping[int, bytes], row: int, offset: int, num_frames: int) -> NDArray[np.uint8]:
    """Frames of a clip from ``offset`` on, and the first of the next clip."""
    frames = decode_sheet(sheets[row], num_frames)
    if not offset:
        return frames
    return np.concatenate([frames[offset:], decode_sheet(sheets[row + 1], num_frames)[:offset]])


def mirror(batch: Batch, mirrored_N: Bools, mirror_classes_K: NDArray[np.int64]) -> None:
    """Mirror the chosen clips left to right, with their targets and labels, in place."""
    frames, label_N = batch.frames_NTHWC, batch.label_N
    frames[mirrored_N] = frames[mirrored_N][:, :, :, ::-1]
    if batch.kept_NJ is not None:
        batch.kept_NJ[mirrored_N] = mirror_classes_K[batch.kept_NJ[mirrored_N]]
    else:
        batch.probs_NK[mirrored_N] = batch.probs_NK[mirrored_N][:, mirror_classes_K]
    labelled = mirrored_N & (label_N >= 0)
    label_N[labelled] = mirror_classes_K[label_N[labelled]]


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """The same items, made up to ``most`` ahead in a thread; what it raises is raised here. Closing it ends the
    thread."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(most)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as e:  # noqa: BLE001 - handed over to the thread that reads
            put((False, e))

    thread = threading.Thread(target=work, name="locum-batches", daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stop.set()
        thread.join()
