"""Which clips the student, and which the teacher, is asked about.

Shapes: N clips.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.select.scores import ClipScores
from schemas.arrays import Bools


@dataclass(frozen=True)
class Decision:
    """``inclusion_N`` is the probability with which the teacher was asked about each clip, where that was drawn; None
    where it follows from the scores. ``in_two_passes`` where no clip is the teacher's before the student has looked at
    all videos: what the teacher is to see is then decoded again."""

    student_N: Bools
    teacher_N: Bools
    inclusion_N: NDArray[np.float64] | None = None
    in_two_passes: bool = False


class Policy(Protocol):
    """Decides from what the student says alone. The same clips and scores give the same decision, whatever stands
    beside them, unless ``couples_videos``."""

    @property
    def couples_videos(self) -> bool:
        """Whether what is decided of a video depends on the others: then it is not one shard's to decide, and no
        guarantee can be had for it."""
        ...

    @property
    def asks_student(self) -> bool:
        """Whether it wants the student's word at all."""
        ...

    def select(self, scores: ClipScores) -> Decision: ...


Steps = Generator[Bools, ClipScores, Decision]
"""Yields the clips that the student is to have looked at, is sent the scores with those, and returns the decision."""


def steps_of(policy: Policy, scores: ClipScores) -> Steps:
    """A policy over clips that the student has not looked at yet, step by step; most take one."""
    if isinstance(policy, Stepwise):
        return policy.steps(scores)
    return _one_step(policy, scores)


@runtime_checkable
class Stepwise(Protocol):
    """A policy whose next look depends on what the last one said."""

    def steps(self, scores: ClipScores) -> Steps: ...


def _one_step(policy: Policy, scores: ClipScores) -> Steps:
    scores = yield np.full(len(scores), policy.asks_student)
    return policy.select(scores)


def deferring(teacher_N: Bools) -> Decision:
    """The student looks at all clips, and the teacher at these."""
    return Decision(np.ones(len(teacher_N), np.bool_), teacher_N)
