"""Clips of which the teacher's word and the label are known as well: for simulations, baselines that cheat, and
certificates. No policy that is used to label sees this.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.select.budget import best_share
from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores
from schemas.arrays import I64, U64, Float32


@dataclass(frozen=True)
class Known:
    """``teacher_NK`` are the teacher's probabilities at temperature 1, ``label_N`` is -1 where there is none.
    ``tempered_NK`` are the same at a temperature of its own, which some aggregations want, if that is another."""

    scores: ClipScores
    teacher_NK: Float32
    label_N: I64
    group_V: U64
    tempered_NK: Float32 | None = None

    @property
    def pooled_NK(self) -> Float32:
        """The teacher's word at its own temperature."""
        return self.teacher_NK if self.tempered_NK is None else self.tempered_NK

    @property
    def label_V(self) -> I64:
        """The label of each video, that of its first clip that has one, or -1; (V,)."""
        label_V = np.full(self.scores.num_videos, -1, np.int64)
        has = np.flatnonzero(self.label_N >= 0)[::-1]
        label_V[self.scores.video_N[has]] = self.label_N[has]
        return label_V

    @property
    def teacher_right_N(self) -> NDArray[np.float64]:
        """1 where the teacher's first class is the label; 0 where not, or where there is none."""
        return np.asarray(self.teacher_NK.argmax(axis=1) == self.label_N, np.float64)

    @property
    def student_right_N(self) -> NDArray[np.float64]:
        return np.asarray(self.scores.probs_NK.argmax(axis=1) == self.label_N, np.float64)


@dataclass(frozen=True)
class GainOracle:
    """Knows which of both is right: a budget spent where the teacher is right and the student is not, kept where it is
    the other way round. The most that a score for single clips could do."""

    share: float

    def select(self, known: Known) -> Decision:
        return deferring(best_share(known.teacher_right_N - known.student_right_N, self.share))


@dataclass(frozen=True)
class LabelOracle:
    """Knows the label: a budget spent where it raises the label's probability most."""

    share: float

    def select(self, known: Known) -> Decision:
        at = np.arange(len(known.label_N)), np.maximum(known.label_N, 0)
        gain_N = known.teacher_NK[at].astype(np.float64) - known.scores.probs_NK[at]
        return deferring(best_share(np.where(known.label_N >= 0, gain_N, 0.0), self.share))
