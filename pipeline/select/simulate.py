"""What policies would have cost and got right, from what both models said: a table scan, no model is run.

Shapes: N clips, V videos, K classes, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Estimate, enough_labels, interval
from pipeline.select.aggregate import AGGREGATIONS, TEMPERED, Answers, video_labels
from pipeline.select.costs import Spent, spent
from pipeline.select.decision import Decision
from pipeline.select.known import Known
from pipeline.select.scores import deferral
from pipeline.select.whole import DenseTeacher
from schemas.arrays import I64
from schemas.policy import CostSpec

Floats = NDArray[np.float64]
NUM_DRAWS, NUM_REDRAWS = 1000, 200


@dataclass(frozen=True)
class Outcome:
    """What a decision came to. ``share`` and ``looked`` are of all clips; ``ratio`` is of the dense teacher's seconds.
    ``agreement`` is with the dense teacher's videos; ``accuracy`` (of videos) and ``gain`` (over the dense teacher's
    accuracy) are of videos with a label, nan where there is none."""

    share: float
    looked: float
    spent: Spent
    ratio: float
    agreement: Estimate
    accuracy: Estimate
    gain: Estimate


class Simulation:
    """Both models' words on some videos, and what things cost."""

    def __init__(self, known: Known, costs: CostSpec, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> None:
        self.known, self.costs = known, costs
        self._seed = seed
        self._draws_BG, self._group_V = _draws(known, num_draws, seed)

    @cached_property
    def dense(self) -> Spent:
        """What the dense teacher costs."""
        return spent(self.known.scores, DenseTeacher().select(self.known.scores), self.costs)

    @cached_property
    def _redraws_BG(self) -> Floats:
        return _draws(self.known, NUM_REDRAWS, self._seed + 1)[0]

    @cached_property
    def reference_V(self) -> I64:
        """The dense teacher's word on each video: what a guarantee is about."""
        return reference(self.known)

    @cached_property
    def label_V(self) -> I64:
        """-1 where a video has none."""
        return self.known.label_V

    @property
    def is_labelled(self) -> bool:
        """Whether enough videos have a label to go by."""
        return enough_labels(int((self.label_V >= 0).sum()), len(self.label_V))

    def labels(self, decision: Decision, aggregation: str) -> I64:
        """The label of each video that comes of a decision; (V,)."""
        k = self.known
        teacher_NK = k.pooled_NK if aggregation in TEMPERED else k.teacher_NK
        return video_labels(
            AGGREGATIONS[aggregation](Answers(k.scores, decision, k.scores.probs_NK, teacher_NK))
        )

    def outcome(self, decision: Decision, aggregation: str) -> Outcome:
        said_V = self.labels(decision, aggregation)
        cost = spent(self.known.scores, decision, self.costs)
        has_V = self.label_V >= 0
        right_V, dense_V = (said_V == self.label_V) & has_V, (self.reference_V == self.label_V) & has_V
        every_V = np.ones(len(said_V))
        return Outcome(
            float(decision.teacher_N.mean()),
            float(decision.student_N.mean()),
            cost,
            cost.seconds / self.dense.seconds,
            self._mean((said_V == self.reference_V).astype(np.float64), every_V),
            self._mean(right_V.astype(np.float64), has_V.astype(np.float64)),
            self._mean(right_V.astype(np.float64) - dense_V, has_V.astype(np.float64)),
        )

    def redrawn(self, decision: Decision, aggregation: str) -> tuple[Floats, Floats]:
        """What it would have come to on videos drawn anew, by groups: the gain in accuracy over the dense teacher, and
        the ratio of costs; (B,) each. Only where videos have labels."""
        said_V = self.labels(decision, aggregation)
        gain_V = (said_V == self.label_V).astype(np.float64) - (self.reference_V == self.label_V)
        cost_V = spent(self.known.scores, decision, self.costs).seconds_V
        has_B, dense_B = self._all_redrawn
        return self._redrawn(gain_V) / np.maximum(has_B, 1.0), self._redrawn(cost_V) / dense_B

    @cached_property
    def _all_redrawn(self) -> tuple[Floats, Floats]:
        """Videos with a label, and the dense teacher's seconds."""
        return self._redrawn((self.label_V >= 0).astype(np.float64)), self._redrawn(self.dense.seconds_V)

    def _redrawn(self, value_V: Floats) -> Floats:
        """Sums over the videos of each draw; (B,)."""
        return np.asarray(self._redraws_BG @ np.bincount(self._group_V, value_V, self._redraws_BG.shape[1]))

    def _mean(self, value_V: Floats, counts_V: Floats) -> Estimate:
        if not counts_V.any():
            return Estimate(np.nan, np.nan, np.nan)
        num_groups = self._draws_BG.shape[1]
        total_G = np.bincount(self._group_V, value_V, num_groups)
        count_G = np.bincount(self._group_V, counts_V, num_groups)
        value = float(total_G.sum() / count_G.sum())
        if num_groups == 1:
            return Estimate(value, np.nan, np.nan)
        with np.errstate(invalid="ignore"):
            draws_B = (self._draws_BG @ total_G) / (self._draws_BG @ count_G)
        return Estimate(value, *interval(draws_B))

    # ---------------------------------------------------------------- scores

    def deferral_areas(self, names: Sequence[str]) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
        """Of each score: how much it raises the share of right clips over deferring at random, averaged over all shares
        deferred; its part of what an oracle would; and how much more it raises than max-probability does. Clips
        without a label do not count. Empty where none has one."""
        k = self.known
        rows = np.flatnonzero(k.label_N >= 0)
        if not len(rows):
            return {}
        gain_X = (k.teacher_right_N - k.student_right_N)[rows]
        weight_BX = np.vstack([np.ones(len(rows)), self._draws_BG[:, self._group_V[k.scores.video_N[rows]]]])
        raised = {
            name: _areas(value_X, gain_X, weight_BX)
            for name, value_X in (
                ("oracle", gain_X),
                ("msp", deferral(k.scores, "msp")[rows]),
                *((n, deferral(k.scores, n)[rows]) for n in names if n != "msp"),
            )
        }
        return {
            name: (_of(raised[name]), _of(raised[name] / raised["oracle"]), _of(raised[name] - raised["msp"]))
            for name in names
        }


def reference(known: Known) -> I64:
    """The dense teacher's word on each video, at temperature 1; (V,)."""
    decision = DenseTeacher().select(known.scores)
    return video_labels(
        AGGREGATIONS["replace-mean"](Answers(known.scores, decision, known.scores.probs_NK, known.teacher_NK))
    )


def _draws(known: Known, num_draws: int, seed: int) -> tuple[Floats, I64]:
    """How often each group is drawn; (B, G), and the number of each video's group (V,)."""
    _, group_V = np.unique(known.group_V, return_inverse=True)
    num_groups = int(group_V.max()) + 1
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), num_draws).astype(
        np.float64
    ), group_V


def _areas(value_X: Floats, gain_X: Floats, weight_BX: Floats) -> Floats:
    """Mean over shares deferred (by falling value) of the gain so far, less that of a random order; (B,). Clips of
    equal value are deferred together, in proportion."""
    _, tie_X = np.unique(-value_X, return_inverse=True)
    order_X = np.argsort(tie_X, kind="stable")
    first_T = np.searchsorted(tie_X[order_X], np.arange(tie_X.max() + 1))
    out = np.empty(len(weight_BX))
    for b, weight_X in enumerate(weight_BX):
        w_T = np.add.reduceat(weight_X[order_X], first_T)
        g_T = np.add.reduceat((weight_X * gain_X)[order_X], first_T)
        total = w_T.sum()
        before_T = np.cumsum(g_T) - g_T
        out[b] = ((before_T + g_T / 2) * w_T).sum() / total**2 - g_T.sum() / (2 * total)
    return out


def _of(values_B: Floats) -> Estimate:
    return Estimate(float(values_B[0]), *interval(values_B[1:]))
