"""Thresholds: the teacher is asked about clips, or about whole videos, whose score is above one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, deferral


@dataclass(frozen=True)
class ClipThreshold:
    """The teacher is asked about every clip whose ``score`` (one of `pipeline.select.scores.SCORES`) is above
    ``threshold``: -inf asks about all, inf about none."""

    score: str
    threshold: float
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        return deferring(deferral(scores, self.score) > self.threshold)


@dataclass(frozen=True)
class VideoThreshold:
    """The teacher is asked about all clips of every video whose mean ``score`` is above ``threshold``; the mean is over
    clips that the student has seen."""

    score: str
    threshold: float
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        mean_V = video_means(scores, deferral(scores, self.score))
        return deferring((mean_V > self.threshold)[scores.video_N])


def video_means(scores: ClipScores, value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the clips of each video that have a value (are not nan); nan where none has. (V,)"""
    seen_N = ~np.isnan(value_N)
    total_V = np.bincount(scores.video_N, np.where(seen_N, value_N, 0.0), scores.num_videos)
    with np.errstate(invalid="ignore"):
        return np.asarray(total_V / np.bincount(scores.video_N, seen_N, scores.num_videos))
