"""What policies come to on test videos, over folds and students; each was calibrated on other videos of its student.

Shapes: V videos, S students.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from jobs.selecting.calibration import open_calibration
from jobs.selecting.judged import judged, open_student
from pipeline import metrics
from pipeline.metrics import Estimate
from pipeline.select.calibrate import Chosen, best, tried
from pipeline.select.costs import spent
from pipeline.select.decision import Decision
from pipeline.select.known import GainOracle, LabelOracle
from pipeline.select.policies import bases_of, policy_of
from pipeline.select.simulate import Simulation
from schemas.errors import SettingsError
from schemas.policy import CostFlags, PolicyKind, ScoreName, Wish

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A policy of the table: what may be chosen among."""

    name: str
    kinds: tuple[PolicyKind, ...]
    scores: tuple[ScoreName, ...] = ("gain",)


ROWS = (
    Row("uniform-k", ("uniform-k",)),
    Row("random-k", ("random-k",)),
    Row("max-probability cascade", ("clip-threshold",), ("msp",)),
    Row("entropy cascade", ("clip-threshold",), ("entropy",)),
    Row("learned top-k", ("top-k",), ("teacher",)),
    Row("clip-threshold, gain", ("clip-threshold",), ("gain",)),
    Row("clip-threshold, gain-in-context", ("clip-threshold",), ("gain-in-context",)),
    Row("video-threshold, video-in-context", ("video-threshold",), ("video-in-context",)),
    Row("video-part, margin", ("video-part",), ("margin",)),
    Row("budget, gain", ("budget",), ("gain",)),
    Row("coarse-to-fine", ("coarse-to-fine",)),
)
"""Beside the dense teacher, the student alone, the oracles, and what `locum calibrate` chooses among all."""


@dataclass(frozen=True)
class Came:
    """What came of it on V videos; sums are of seconds, as the costs say."""

    right_V: Floats
    dense_V: Floats
    agrees_V: Floats
    group_V: NDArray[np.uint64]
    clips: int
    deferred: int
    decode_s: float
    student_s: float
    teacher_s: float
    dense_s: float

    @property
    def share(self) -> float:
        return self.deferred / self.clips

    @property
    def ratio(self) -> float:
        return (self.decode_s + self.student_s + self.teacher_s) / self.dense_s


def over_folds(parts: Sequence[Came]) -> Came:
    """Students of several folds: all their videos."""
    values = {}
    for field in fields(Came):
        each = [getattr(p, field.name) for p in parts]
        values[field.name] = np.concatenate(each) if field.name.endswith("_V") else sum(each)
    return Came(**values)


@dataclass(frozen=True)
class Over:
    """The same videos by S students, averaged: accuracy of videos, and differences with intervals of groups."""

    each_S: tuple[Came, ...]
    draws: int

    def _mean(self, name: str) -> Floats:
        return np.asarray(np.mean([getattr(c, name) for c in self.each_S], axis=0))

    @property
    def students(self) -> int:
        return len(self.each_S)

    @property
    def share(self) -> float:
        return float(np.mean([c.share for c in self.each_S]))

    @property
    def ratio(self) -> float:
        return float(np.mean([c.ratio for c in self.each_S]))

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Of decoding, student and teacher."""
        return tuple(
            float(np.mean([getattr(c, n) for c in self.each_S]))
            for n in ("decode_s", "student_s", "teacher_s")
        )  # type: ignore[return-value]

    @property
    def agreement(self) -> float:
        return float(self._mean("agrees_V").mean())

    @cached_property
    def accuracy(self) -> Estimate:
        return self._estimate(self._mean("right_V"))

    @cached_property
    def gain(self) -> Estimate:
        """Over the dense teacher."""
        return self._estimate(self._mean("right_V") - self._mean("dense_V"))

    def over(self, other: Over) -> Estimate:
        """Over another row, on the same videos."""
        return self._estimate(self._mean("right_V") - other._mean("right_V"))

    def _estimate(self, value_V: Floats) -> Estimate:
        return metrics.mean_over_groups(value_V, self.each_S[0].group_V, num_draws=self.draws)


class Student:
    """A student with the videos that its policies are chosen on, and its test videos; both read once."""

    def __init__(self, url: str, costs: CostFlags) -> None:
        student = open_student(url)
        found = open_calibration(student, costs=costs, num_draws=2)
        if found.fit is None:
            raise ValueError("scores in context are wanted")
        self.targets, self._choosing = found.targets, found.sim
        on = judged(student, "test", found.targets)
        self.judged = on.where(~on.known_to_teacher_N)
        known = self.judged.tempered(*found.temperatures).known(found.fit.for_others())
        self.sim = Simulation(known, found.sim.costs, num_draws=2)
        self._tried: dict[Row, list[Chosen]] = {}

    def calibrated(self, row: Row, wish: Wish) -> Came:
        """What is best on the videos to choose on, on the test videos.

        Raises
        ------
        SettingsError
            If nothing meets the wish.
        """
        if row not in self._tried:
            self._tried[row] = tried(self._choosing, bases_of(row.kinds, row.scores), None, wish)
        chosen = best(self._choosing, self._tried[row], wish)
        return came(self.sim, policy_of(chosen.spec).select(self.sim.known.scores), chosen.aggregation)

    def oracle(self, kind: type[GainOracle] | type[LabelOracle], share: float) -> Came:
        """What knows the answers, about so much of the clips."""
        return came(self.sim, kind(share).select(self.sim.known), "replace-mean")


@dataclass(frozen=True)
class Folds:
    """The students of one seed, one a fold."""

    students: tuple[Student, ...]

    def calibrated(self, row: Row, wish: Wish) -> Came | None:
        """Of a policy that each student is calibrated for, on the videos of its fold; None where one cannot be."""
        try:
            return over_folds([s.calibrated(row, wish) for s in self.students])
        except SettingsError:
            return None

    def oracle(self, kind: type[GainOracle] | type[LabelOracle], share: float) -> Came:
        """What knows the answers, about so much of the clips of each fold."""
        return over_folds([s.oracle(kind, share) for s in self.students])


def came(sim: Simulation, decision: Decision, aggregation: str) -> Came:
    said_V = sim.labels(decision, aggregation)
    cost = spent(sim.known.scores, decision, sim.costs)
    return Came(
        np.asarray(said_V == sim.label_V, np.float64),
        np.asarray(sim.reference_V == sim.label_V, np.float64),
        np.asarray(said_V == sim.reference_V, np.float64),
        sim.known.group_V,
        len(sim.known.scores),
        int(decision.teacher_N.sum()),
        float(cost.decode_V.sum()),
        float(cost.student_V.sum()),
        float(cost.teacher_V.sum()),
        sim.dense.seconds,
    )
