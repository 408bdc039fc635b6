"""The two ends of every trade: the student alone, and the dense teacher; and a share of videos for an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.select.decision import Decision, Policy, deferring
from pipeline.select.scores import ClipScores, audit_draws, hashes_of
from schemas.arrays import Bools


@dataclass(frozen=True)
class StudentAlone:
    """The teacher is never asked. ``score`` is what is noted of each clip."""

    score: str = "gain"
    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = True

    def select(self, scores: ClipScores) -> Decision:
        return deferring(np.zeros(len(scores), np.bool_))


@dataclass(frozen=True)
class DenseTeacher:
    """The teacher is asked about every clip, and the student about none."""

    couples_videos: ClassVar[bool] = False
    asks_student: ClassVar[bool] = False

    def select(self, scores: ClipScores) -> Decision:
        return Decision(np.zeros(len(scores), np.bool_), np.ones(len(scores), np.bool_))


@dataclass(frozen=True)
class Audited:
    """As ``policy`` says, and for a random ``share`` of the videos the teacher is asked about all clips."""

    policy: Policy
    share: float
    seed: int = 0

    @property
    def couples_videos(self) -> bool:
        return self.policy.couples_videos

    @property
    def asks_student(self) -> bool:
        return self.policy.asks_student

    def select(self, scores: ClipScores) -> Decision:
        decided = self.policy.select(scores)
        audited_N = self.drawn(scores)[scores.video_N]
        return Decision(decided.student_N, decided.teacher_N | audited_N, decided.inclusion_N)

    def drawn(self, scores: ClipScores) -> Bools:
        """Which videos are audited; (V,)."""
        return drawn_for_audit(scores.ids_V, self.share, self.seed)


def drawn_for_audit(video_ids: Sequence[str], share: float, seed: int) -> Bools:
    """Which of some videos are; (V,)."""
    return np.asarray(audit_draws(hashes_of(video_ids), seed) < share)
