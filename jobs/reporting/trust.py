"""How far student and teacher can be trusted, by the student's held-out videos."""

from __future__ import annotations

import numpy as np

from jobs.reporting.behind import Held
from jobs.reporting.figures import Figures
from jobs.reporting.said import percent
from pipeline.report.curves import Said, draw_reliability, draw_risk_coverage
from pipeline.report.page import Block, Note, Table
from pipeline.report.quadrants import Quadrant, quadrants
from pipeline.uncertainty import softmax


def trust(held: Held, figures: Figures) -> list[Block]:
    on, sim = held.applied.judged, held.applied.sim
    has_N = on.label_N >= 0
    if not has_N.any():
        return [Note("None of these videos has a label: nothing is known of how often either is right.")]
    known = sim.known
    student_NK = known.scores.probs_NK[has_N]
    teacher_NK = known.teacher_NK[has_N]
    as_said_NK = softmax(on.student_NK[has_N])
    label_N = on.label_N[has_N]
    right_N, teacher_right_N = (p.argmax(axis=1) == label_N for p in (student_NK, teacher_NK))
    wide = {
        "student, by its first class": Said(student_NK.max(axis=1).astype(np.float64), right_N),
        "student, by its confidence head": Said(
            known.scores.student_right_N[has_N].astype(np.float64), right_N
        ),
        "teacher, by its first class": Said(teacher_NK.max(axis=1).astype(np.float64), teacher_right_N),
    }
    sure = {
        "student, as it is": Said(as_said_NK.max(axis=1).astype(np.float64), right_N),
        "student, at its temperature": wide["student, by its first class"],
        "teacher": wide["teacher, by its first class"],
    }
    return [
        figures.picture(
            "risk-coverage",
            "Wrong answers among the surest",
            draw_risk_coverage(wide),
            "A line that falls to the left: confidence tells right from wrong.",
        ),
        figures.picture(
            "reliability",
            "What a probability is worth",
            draw_reliability(sure),
            "Bins of about equally many clips; on the dashed line a probability means what it says.",
        ),
        _quadrants(quadrants_of(held)),
    ]


def quadrants_of(held: Held) -> tuple[Quadrant, ...]:
    """Of the clips that have a label."""
    known = held.applied.sim.known
    has_N = known.label_N >= 0
    return quadrants(
        known.student_right_N[has_N] > 0,
        known.teacher_right_N[has_N] > 0,
        held.applied.decision.teacher_N[has_N],
    )


def _quadrants(found: tuple[Quadrant, ...]) -> Table:
    words = {
        (True, True): "both are right",
        (True, False): "the student alone is right",
        (False, True): "the teacher alone is right",
        (False, False): "neither is right",
    }
    rows = [
        (words[(q.student_right, q.teacher_right)], str(q.clips), percent(q.share), percent(q.deferred))
        for q in found
    ]
    return Table(
        "Who is right",
        ("clips", "number", "of all", "went to the teacher"),
        tuple(rows),
        frozenset({1, 2, 3}),
        frozenset({2}),
        "Calling the teacher pays where it alone is right, and nowhere else.",
    )
