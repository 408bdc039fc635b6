"""Which uncertainty tells what: the chance that a score ranks a clip where something is so above one where it is not.

What the teacher's uncertainties and the student's scores say of the student's errors, of the teacher's, and of where
the teacher alone is right: there calling it pays.

Shapes: N clips, S students.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.evidence.outcomes import Student
from pipeline import metrics
from pipeline.metrics import Estimate
from pipeline.select.scores import deferral
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.policy import SCORES

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OF_THE_TEACHER = ("msp", "margin", "entropy", "energy", "temporal_jsd", "mutual_information")
"""Columns of a target store; of the first two a high one says sure."""
_SURE = ("msp", "margin")


@dataclass(frozen=True)
class Clips:
    """Clips with a label, of the students of one seed."""

    student_right_N: Bools
    teacher_right_N: Bools
    group_N: NDArray[np.uint64]
    teacher: Mapping[str, Floats]
    """What the teacher's uncertainties say, high for unsure."""
    student: Mapping[str, Floats]
    """The deferral scores."""


QUESTIONS: Mapping[str, Callable[[Clips], Bools]] = {
    "the student is wrong": lambda c: ~c.student_right_N,
    "the teacher is wrong": lambda c: ~c.teacher_right_N,
    "the teacher alone is right": lambda c: c.teacher_right_N & ~c.student_right_N,
}


def clips_of(students: Sequence[Student]) -> Clips:
    """The test clips of students of several folds."""
    parts = []
    for student in students:
        on, known = student.judged, student.sim.known
        has_N = on.label_N >= 0
        keys = [f"{v} {s}" for v, s in zip(on.video_id_N, on.start_us_N.tolist(), strict=True)]
        teacher = _uncertainties(student.targets, keys)
        parts.append(
            Clips(
                (known.student_right_N > 0)[has_N],
                (known.teacher_right_N > 0)[has_N],
                on.group_N[has_N],
                {name: value_N[has_N] for name, value_N in teacher.items()},
                {name: deferral(known.scores, name)[has_N] for name in SCORES},
            )
        )
    arrays = ("student_right_N", "teacher_right_N", "group_N")
    both = {
        kind: {n: np.concatenate([getattr(p, kind)[n] for p in parts]) for n in getattr(parts[0], kind)}
        for kind in ("teacher", "student")
    }
    return Clips(*(np.concatenate([getattr(p, n) for p in parts]) for n in arrays), **both)


def _uncertainties(store: ShardStore, keys: Sequence[str]) -> dict[str, Floats]:
    """The teacher's, in the order of keys; high for unsure."""
    schema = store.kind.data_schema(store.document.spec)
    names = [n for n in OF_THE_TEACHER if n in schema.names]
    table = pa.concat_tables(scan(store, ["video_id", "start_us", *names]))
    there = pc.binary_join_element_wise(table["video_id"], table["start_us"].cast(pa.string()), " ")
    at = pc.index_in(pa.array(keys), value_set=there.combine_chunks())
    rows = table.take(at)
    return {
        n: (-1 if n in _SURE else 1) * np.asarray(rows[n].fill_null(0.0).to_numpy(), np.float64)
        for n in names
    }  # of a video of one clip nothing can disagree


@dataclass(frozen=True)
class Line:
    """A score, and how well it answers each question: means over students, intervals of groups."""

    of: str
    score: str
    auroc: dict[str, Estimate]


def ablation(each_S: Sequence[Clips], draws: int) -> list[Line]:
    """All scores of the teacher's and the student's, on the same clips."""
    lines = []
    for of in ("teacher", "student"):
        for score in getattr(each_S[0], of):
            found = {
                question: _auroc(
                    [getattr(c, of)[score] for c in each_S], [ask(c) for c in each_S], each_S, draws
                )
                for question, ask in QUESTIONS.items()
            }
            lines.append(Line(of, score, found))
    return lines


def _auroc(
    score_SN: Sequence[Floats], so_SN: Sequence[Bools], each_S: Sequence[Clips], draws: int
) -> Estimate:
    def mean(at: NDArray[np.intp]) -> float:
        return float(np.mean([metrics.auroc(v[at], so[at]) for v, so in zip(score_SN, so_SN, strict=True)]))

    group_N = each_S[0].group_N
    drawn = metrics.bootstrap(mean, group_N, num_draws=draws)
    return Estimate(mean(np.arange(len(group_N))), *metrics.interval(drawn))
