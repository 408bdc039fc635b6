"""Who is right where: student and teacher, clip by clip, and how many of each kind went to the teacher. Pure.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Quadrant:
    """Clips of one kind, their share of all, and the share of them that went to the teacher."""

    student_right: bool
    teacher_right: bool
    clips: int
    share: float
    deferred: float

    def to_json(self) -> dict[str, Any]:
        return self.__dict__


def quadrants(student_right_N: Bools, teacher_right_N: Bools, deferred_N: Bools) -> tuple[Quadrant, ...]:
    """Both right; the student alone; the teacher alone; neither."""
    found = []
    for student, teacher in ((True, True), (True, False), (False, True), (False, False)):
        at_N = (student_right_N == student) & (teacher_right_N == teacher)
        clips = int(at_N.sum())
        found.append(
            Quadrant(
                student,
                teacher,
                clips,
                clips / len(at_N) if len(at_N) else 0.0,
                float(deferred_N[at_N].mean()) if clips else 0.0,
            )
        )
    return tuple(found)
