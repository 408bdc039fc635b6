"""So many clips of each video: those that want the teacher most, evenly spread ones, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, deferral, first_by_video


@dataclass(frozen=True)
class TopK:
    """The teacher is asked about the ``k`` clips of each video with the highest ``score``, if above ``floor``."""

    score: str
    k: int
    floor: float = -np.inf
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        value_N = deferral(scores, self.score)
        return deferring((first_by_video(scores, value_N) < self.k) & (value_N > self.floor))


@dataclass(frozen=True)
class UniformK:
    """A baseline without a student: the teacher is asked about ``k`` clips spread evenly over each video."""

    k: int
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = False

    def select(self, scores: ClipScores) -> Decision:
        place_N = first_by_video(scores, np.zeros(len(scores)))  # 0.. in time
        size_N = scores.size_V[scores.video_N]
        # Clip i of n is one of the k middles (2 j + 1) n / 2 k, rounded down, when a middle lies in [i, i + 1).
        below_N = _middles_before(place_N, size_N, self.k)
        teacher_N = (self.k >= size_N) | (_middles_before(place_N + 1, size_N, self.k) > below_N)
        return Decision(np.zeros(len(scores), np.bool_), teacher_N)


@dataclass(frozen=True)
class RandomK:
    """A baseline: the teacher is asked about ``k`` clips of each video, drawn without regard to what they show. A
    clip's chance is ``k`` by its video's number of clips. The student looks at none, or at all ``with_student``."""

    k: int
    seed: int = 0
    with_student: bool = False
    couples_videos: ClassVar[bool] = False

    @property
    def asks_student(self) -> bool:
        return self.with_student

    def select(self, scores: ClipScores) -> Decision:
        size_N = scores.size_V[scores.video_N]
        teacher_N = first_by_video(scores, scores.clip_draws(self.seed)) < self.k
        student_N = np.full(len(scores), self.with_student)
        return Decision(student_N, teacher_N, np.minimum(1.0, self.k / size_N))


def _middles_before(place_N: np.ndarray, size_N: np.ndarray, k: int) -> np.ndarray:
    """How many of the k middles of a video of so many clips lie before a place. (2 j + 1) n < 2 k place."""
    return np.asarray(np.clip(-((size_N - 2 * k * place_N) // (2 * size_N)), 0, k))
