"""Clips that overlap: which of them are views of one stretch of their video, and one view of each stretch an epoch.

A cache whose clips start closer together than they are long holds exact targets of several windows of each stretch, so
a student can be shown another window in each epoch, as an online teacher would allow, for as many steps as one clip a
stretch takes.

The stretches of a video are what it would be cut into without overlap: its clips are each the nearest stretch's.

Shapes: R rows, V videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.order import PICKS
from schemas.arrays import I64, Bools
from schemas.clip import ClipSpec, count_clips_N


def stretches(rows_R: NDArray[Any], clip: ClipSpec) -> I64:
    """The number of the stretch of each row, counted through all videos; (R,).

    ``rows_R`` are the rows of a snapshot. A video's stretches are counted from its first row to its last one, whatever
    lies between.
    """
    if not len(rows_R):
        return np.empty(0, np.int64)
    _, video_R = np.unique(rows_R["video"], return_inverse=True)
    num_videos = int(video_R.max()) + 1
    first_V = np.full(num_videos, np.iinfo(np.int64).max)
    np.minimum.at(first_V, video_R, rows_R["start_us"])
    end_V = np.zeros(num_videos, np.int64)
    np.maximum.at(end_V, video_R, rows_R["end_us"])
    alone = clip.model_copy(update={"stride_seconds": None, "max_clips": None})
    count_V = count_clips_N(end_V - first_V, alone).astype(np.int64)
    # All stretches but the last start a clip's length apart; the last one ends with the video.
    length, last_V = clip.length_us, np.maximum(end_V - first_V - clip.length_us, 0)
    at_R = rows_R["start_us"] - first_V[video_R]
    nearest_R = np.minimum((at_R + length // 2) // length, np.maximum(count_V[video_R] - 2, 0))
    is_last_R = np.abs(at_R - last_V[video_R]) < np.abs(at_R - nearest_R * length)
    return np.asarray(
        (np.cumsum(count_V) - count_V)[video_R] + np.where(is_last_R, count_V[video_R] - 1, nearest_R)
    )


def one_of_each(stretch_R: I64, chosen_R: Bools, *, seed: int, epoch: int) -> Bools:
    """One of the chosen rows of each stretch, drawn anew for each epoch; (R,)."""
    rows = np.flatnonzero(chosen_R)
    shuffled = np.random.default_rng([seed, epoch, PICKS]).permutation(rows)
    _, first = np.unique(stretch_R[shuffled], return_index=True)
    out: Bools = np.zeros(len(chosen_R), np.bool_)
    out[shuffled[first]] = True
    return out
