"""Thresholds: the teacher is asked about clips, or about whole videos, whose score is above one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, deferral


@dataclass(frozen=True)
class ClipThreshold:
    """The teacher is asked about every clip whose ``score`` (one of `pipeline.select.scores.SCORES`) is above
    ``threshold``: -inf asks about all, inf about none."""

    score: str
    threshold: float
    couples_videos: ClassVar[bool] = False

    def select(self, scores: ClipScores) -> Decision:
        return deferring(deferral(scores, self.score) > self.threshold)


@dataclass(frozen=True)
class VideoThreshold:
    """The teacher is asked about all clips of every video whose mean ``score`` is above ``threshold``."""

    score: str
    threshold: float
    couples_videos: ClassVar[bool] = False

    def select(self, scores: ClipScores) -> Decision:
        total_V = np.bincount(scores.video_N, deferral(scores, self.score), scores.num_videos)
        mean_V = total_V / np.bincount(scores.video_N, minlength=scores.num_videos)
        return deferring((mean_V > self.threshold)[scores.video_N])
