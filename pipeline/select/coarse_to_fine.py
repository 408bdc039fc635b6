"""Coarse to fine: the student looks at a few clips of a video, and at more of them only while it is in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from pipeline.select.decision import Decision, Policy, Steps
from pipeline.select.scores import ClipScores, first_by_video
from pipeline.uncertainty import margin
from schemas.arrays import Bools


@dataclass(frozen=True)
class CoarseToFine:
    """The student looks at every ``strides[0]``-th clip of a video, then at every ``strides[1]``-th, and so on, until
    the mean of its probabilities leads by ``exit_margin``: then the video is done. Videos still in doubt at the end are
    ``then``'s, among the clips that the student has seen."""

    strides: tuple[int, ...]
    exit_margin: float
    then: Policy

    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def looks(self, scores: ClipScores, level: int) -> Bools:
        """Clips that are looked at when no video is done before ``level``; (N,)."""
        place_N = first_by_video(scores, np.zeros(len(scores)))
        short_N = scores.size_V[scores.video_N] <= self.strides[0] // 2
        looked_N: Bools = (place_N == 0) & short_N
        for stride in self.strides[: level + 1]:
            looked_N |= place_N % stride == stride // 2
        return looked_N

    def in_doubt(self, scores: ClipScores, looked_N: Bools) -> Bools:
        """Videos whose first class does not lead by enough, by what was looked at; (V,)."""
        said_NK = np.where(looked_N[:, None], scores.probs_NK, 0.0)
        start_V = np.searchsorted(scores.video_N, np.arange(scores.num_videos))
        count_V = np.bincount(scores.video_N, looked_N, scores.num_videos)
        mean_VK = np.add.reduceat(said_NK, start_V) / count_V[:, None]
        return np.asarray(margin(mean_VK.astype(np.float32)) < self.exit_margin)

    def steps(self, scores: ClipScores) -> Steps:
        """See `pipeline.select.decision.steps_of`."""
        looked_N = np.zeros(len(scores), np.bool_)
        doubt_V = np.ones(scores.num_videos, np.bool_)
        for level in range(len(self.strides)):
            looked_N = looked_N | (self.looks(scores, level) & doubt_V[scores.video_N])
            scores = yield looked_N
            doubt_V &= self.in_doubt(scores, looked_N)
        chosen = self.then.select(scores.seen(looked_N))
        return Decision(looked_N, chosen.teacher_N & looked_N & doubt_V[scores.video_N])

    def select(self, scores: ClipScores) -> Decision:
        steps = self.steps(scores)
        try:
            next(steps)
            while True:
                steps.send(scores)
        except StopIteration as done:
            return cast(Decision, done.value)
