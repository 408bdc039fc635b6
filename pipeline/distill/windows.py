"""Views of a cached video that are not one of its cached clips: what the teacher is taken to say of them.

A window that starts within one clip and ends within the next shows frames of both, and its target is the mean of
what the teacher said of them, weighted by overlap. That is not what the teacher would say of the window itself: a
cache cannot give that. The docs say how far off it is.

Shapes: N windows, R rows, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Bools, Float32


def joined_to_next(rows_R: NDArray[Any], usable_R: Bools, length_us: int) -> Bools:
    """Which rows a window may start in and end in the next row: both of one video, touching, of full length, whole.
    (R,)"""
    full = (rows_R["end_us"] - rows_R["start_us"] == length_us) & usable_R & ~rows_R["damaged"]
    out: Bools = np.zeros(len(rows_R), np.bool_)
    if len(rows_R) > 1:
        same = rows_R["video"][1:] == rows_R["video"][:-1]
        touching = rows_R["start_us"][1:] == rows_R["end_us"][:-1]
        out[:-1] = full[:-1] & full[1:] & same & touching
    return out


def shifted(
    probs_NK: Float32,
    next_NK: Float32,
    offset_N: NDArray[np.integer],
    num_frames: int,
    multi_label: bool = False,
) -> Float32:
    """Means by overlap, of N windows that start ``offset_N`` of ``num_frames`` frames into clips that touch the next.

    Probabilities come to 1, unless each class is a coin of its own (``multi_label``).
    """
    share_N1 = (offset_N / num_frames).astype(np.float32)[:, None]
    mean_NK = (1 - share_N1) * probs_NK + share_N1 * next_NK
    return np.asarray(mean_NK if multi_label else mean_NK / mean_NK.sum(axis=1, keepdims=True))
