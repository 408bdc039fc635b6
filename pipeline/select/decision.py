"""Which clips the student, and which the teacher, is asked about.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.select.scores import ClipScores
from schemas.arrays import Bools


@dataclass(frozen=True)
class Decision:
    """``inclusion_N`` is the probability with which the teacher was asked about each clip, where that was drawn; None
    where it follows from the scores."""

    student_N: Bools
    teacher_N: Bools
    inclusion_N: NDArray[np.float64] | None = None


class Policy(Protocol):
    """Decides from what the student says alone. The same clips and scores give the same decision, whatever stands
    beside them, unless ``couples_videos``."""

    @property
    def couples_videos(self) -> bool:
        """Whether what is decided of a video depends on the others: then it is not one shard's to decide, and no
        guarantee can be had for it."""
        ...

    def select(self, scores: ClipScores) -> Decision: ...


def deferring(teacher_N: Bools) -> Decision:
    """The student looks at all clips, and the teacher at these."""
    return Decision(np.ones(len(teacher_N), np.bool_), teacher_N)
