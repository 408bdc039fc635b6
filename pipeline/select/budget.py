"""A budget: the clips that want the teacher most, over all videos, for so much of what the dense teacher would cost.

Which clips are chosen hangs on all videos together, so it is decided over a whole table, and never certified. The price
that comes of it can be applied to a video by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, deferral
from schemas.arrays import Bools

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """The teacher is asked about clips of the highest ``score`` as long as they come to no more than ``share`` of all
    clips, exactly; equal scores by video and time."""

    score: str
    share: float
    couples_videos: ClassVar[bool] = True
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        # As they are written, so that a choice among rows of a store is the same.
        value_N = deferral(scores, self.score).astype(np.float32).astype(np.float64)
        return replace(deferring(best_share(value_N, self.share)), in_two_passes=True)


def best_share(value_N: Floats, share: float) -> Bools:
    """The highest values, as many as ``share`` of them rounded down; (N,).

    Raises
    ------
    ValueError
        If the share is not 0 to 1.
    """
    chosen_N: Bools = np.zeros(len(value_N), np.bool_)
    chosen_N[np.argsort(-value_N, kind="stable")[: count_of(share, len(value_N))]] = True
    return chosen_N


def count_of(share: float, clips: int) -> int:
    """``share`` of so many clips, rounded down.

    Raises
    ------
    ValueError
        If the share is not 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a budget is a share of the clips, 0 to 1: {share}")
    # Not share * N: 0.29 of 100 would be 28, for 0.29 is a little less than it says.
    return int(np.floor(round(share * clips, 9)))


def price_of(value_N: Floats, share: float) -> float:
    """The threshold that lets ``share`` of the values pass, or as many fewer as are equal at the edge: midway between
    two values that are there. What a budget comes to where clips are decided on one by one."""
    sorted_N = np.sort(value_N)[::-1]
    count = int(best_share(value_N, share).sum())
    if count == 0:
        return float("inf")
    if count == len(sorted_N):
        return float("-inf")
    above = sorted_N[sorted_N > sorted_N[count]]
    return float((above[-1] + sorted_N[count]) / 2) if len(above) else float("inf")
