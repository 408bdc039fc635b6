"""In which order a training run sees its rows: a pure function of seed and epoch, so that a resumed run sees the same.

The blocks of a store are permuted and taken some at a time; the rows of those are permuted together. No buffer, and no
state of a generator, has to be kept to go on in the middle: a run seeks to the right window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import I64, Bools

_WINDOWS, _ROWS, _DRAWS, PICKS = range(4)
"""What is drawn for; `PICKS` are those of `pipeline.distill.stretches`."""


@dataclass(frozen=True)
class Blocks:
    """B blocks of rows that lie together: the first row of each, how many there are, and the bytes of their frames."""

    first_B: I64
    rows_B: I64
    bytes_B: I64


@dataclass(frozen=True)
class Window:
    """The blocks that are read together, and their chosen rows in the order in which they are seen."""

    blocks: NDArray[np.intp]
    rows_N: I64


def epoch_windows(
    blocks: Blocks, chosen_R: Bools, *, seed: int, epoch: int, window_bytes: int, skip: int = 0
) -> Iterator[tuple[int, Window]]:
    """The windows of an epoch, each with the number of rows that were seen before it.

    A window holds as many blocks as come to ``window_bytes``, and one at least.
    Windows that end within the first ``skip`` rows are passed over, without looking at their rows.
    """
    counts_B = (
        np.add.reduceat(np.append(chosen_R, False), blocks.first_B) if len(blocks.first_B) else np.empty(0)
    )
    order = np.random.default_rng([seed, epoch, _WINDOWS]).permutation(len(blocks.first_B))
    order = order[counts_B[order] > 0]
    before = 0
    for number, taken in enumerate(_filled(order, blocks.bytes_B, window_bytes)):
        count = int(counts_B[taken].sum())
        if before + count > skip:
            rows = np.concatenate(
                [
                    np.flatnonzero(chosen_R[first : first + n]) + first
                    for first, n in zip(blocks.first_B[taken], blocks.rows_B[taken], strict=True)
                ]
            )
            rng = np.random.default_rng([seed, epoch, _ROWS, number])
            yield before, Window(taken, rows[rng.permutation(len(rows))])
        before += count


def _filled(order: NDArray[np.intp], bytes_B: I64, most: int) -> Iterator[NDArray[np.intp]]:
    """Consecutive parts of ``order``, each of at most so many bytes, or of a single block."""
    start, held = 0, 0
    for i, size in enumerate(bytes_B[order].tolist()):
        if i > start and held + size > most:
            yield order[start:i]
            start, held = i, 0
        held += size
    if start < len(order):
        yield order[start:]


def num_steps(num_rows: int, batch_size: int) -> int:
    """Whole batches of an epoch; one of all rows where there are too few for that."""
    return max(1, num_rows // batch_size) if num_rows else 0


def draws(seed: int, epoch: int, step: int) -> np.random.Generator:
    """The random numbers of one step."""
    return np.random.default_rng([seed, epoch, _DRAWS, step])
