"""Videos in doubt, and of those the part on which the teacher is likeliest right.

A label is a video's, so what is worth asking is decided by video; and clips that show nothing tell the teacher nothing
either. Pooled by the teacher alone (`teacher_only`) such a part says more than half of what all clips would, for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, deferral, first_by_video
from pipeline.select.thresholds import video_means
from schemas.policy import IN_CONTEXT

LEAST: Mapping[str, float] = MappingProxyType(
    {
        "msp": -1.0,
        "margin": -1.0,
        "entropy": 0.0,
        "confidence": -1.0,
        "gain": 0.0,
        "teacher": 0.0,
        "confidence-in-context": -1.0,
        "gain-in-context": 0.0,
        "teacher-in-context": 0.0,
        "video-in-context": 0.0,
    }
)
"""Of each score: where there is no doubt."""


@dataclass(frozen=True)
class VideoPart:
    """The teacher is asked about videos whose doubt is above ``threshold``: the mean of ``score`` over clips that the
    student has seen, counted from where there is none (`LEAST`), divided by the ``price``-th power of the number of
    clips that would be asked about. Those are ``part`` of the video's clips, rounded up: the ones with the highest
    chance that the teacher is right."""

    score: str
    threshold: float
    part: float
    price: float = 0.5
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        chosen_V = self.doubt(scores) > self.threshold
        likeliest = "teacher-in-context" if self.score.endswith(IN_CONTEXT) else "teacher"
        rank_N = first_by_video(scores, deferral(scores, likeliest))
        return deferring(chosen_V[scores.video_N] & (rank_N < self.asked(scores)[scores.video_N]))

    def asked(self, scores: ClipScores) -> NDArray[np.int64]:
        """How many clips of each video would be asked about; (V,)."""
        return np.ceil(np.round(self.part * scores.size_V, 9)).astype(np.int64)

    def doubt(self, scores: ClipScores) -> NDArray[np.float64]:
        """Of each video; (V,)."""
        mean_V = video_means(scores, deferral(scores, self.score))
        return np.asarray(np.maximum(mean_V - LEAST[self.score], 0.0) / self.asked(scores) ** self.price)
