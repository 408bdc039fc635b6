"""Fit what says how likely student and teacher are right about a clip in its video (`pipeline.select.context`).

Penalised maximum likelihood by Newton's method; how strongly slopes are held down is chosen by cross-validation over
groups.

Shapes: N clips, V videos, G groups, X inputs, P terms.
"""

from __future__ import annotations

import numpy as np

from pipeline.draws import draws_of, folds
from pipeline.metrics import enough_labels
from pipeline.select.context import Context, Floats, bent, inputs, right, spread
from pipeline.select.known import Known
from schemas.arrays import U64, Bools
from schemas.context import ContextHead, ContextHeads

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""On the squared slopes, in clips."""
MOST_CLIPS = 20_000
"""A head has some sixty numbers to fit: more clips are not worth the time."""

_FOLDS = 5
_NO_SLOPES = 1e12
_STEPS = 30
_CLOSE = 1e-7


class ContextFit:
    """Heads fitted on clips of which both words are known; and, for choices among policies on these very clips, heads
    for each fifth of the groups that were fitted on the others.

    With few labels "right" is how sure the teacher is of what each says."""

    def __init__(self, known: Known, seed: int = 0) -> None:
        self._known, self._x_NX = known, inputs(known.scores)
        self._rights = _rights(known)
        group_N = known.group_V[known.scores.video_N]
        self._fold_N = folds(group_N, _FOLDS, seed=seed)
        self._kept_N = _at_most(group_N, ~np.isnan(self._rights[0]), MOST_CLIPS, seed)
        self._penalties = tuple(self._penalty(right_N) for right_N in self._rights)
        self.heads = self._on(self._kept_N)

    def for_others(self) -> Context:
        """For videos that they were not fitted on."""
        return Context((self.heads,))

    def for_these(self) -> Context:
        """For the videos that they were fitted on."""
        s = self._known.scores
        heads = tuple(self._on(self._kept_N & (self._fold_N != fold)) for fold in range(_FOLDS))
        first_V = np.searchsorted(s.video_N, np.arange(s.num_videos))
        return Context(heads, dict(zip(s.ids_V, self._fold_N[first_V].tolist(), strict=True)))

    def _on(self, rows_N: Bools) -> ContextHeads:
        """Of some of the clips; where that is none, heads that say the same of every clip."""
        some = bool(rows_N.any())
        student, teacher = (
            _fitted(self._x_NX, right_N, rows_N if some else self._kept_N, penalty if some else _NO_SLOPES)
            for right_N, penalty in zip(self._rights, self._penalties, strict=True)
        )
        return ContextHeads(student=student, teacher=teacher, clips=int(rows_N.sum()))

    def _penalty(self, right_N: Floats) -> float:
        """The penalty at which other groups are foretold best; the largest where there are no others."""
        losses: list[float] = []
        for penalty in PENALTIES:
            each = []
            for fold in range(_FOLDS):
                fit_N, held_N = self._kept_N & (self._fold_N != fold), self._kept_N & (self._fold_N == fold)
                if fit_N.any() and held_N.any():
                    head = _fitted(self._x_NX, right_N, fit_N, penalty)
                    each.append(_loss(right(head, self._x_NX[held_N]), right_N[held_N]))
            losses.append(sum(each) if each else -penalty)
        return PENALTIES[int(np.argmin(losses))]


def _fitted(x_NX: Floats, right_N: Floats, rows_N: Bools, penalty: float) -> ContextHead:
    rows = np.flatnonzero(rows_N)
    x_NX = x_NX[rows]
    # With few clips, all right perhaps, a head must not become sure of everything.
    right_N = (right_N[rows] * len(rows) + 0.5) / (len(rows) + 1)
    mean_X, std_X = x_NX.mean(axis=0), np.maximum(x_NX.std(axis=0), 1e-3)
    z_NX = spread(x_NX, mean_X, std_X)
    knots_X2 = np.quantile(z_NX, [1 / 3, 2 / 3], axis=0).T
    terms_NP = bent(z_NX, knots_X2).reshape(len(rows), -1)
    terms_NP = np.concatenate([terms_NP, np.ones((len(rows), 1))], axis=1)
    held_P = np.full(terms_NP.shape[1], penalty)
    held_P[-1] = 1e-6
    weight_P = _newton(terms_NP, right_N, held_P)
    slopes_X3 = weight_P[:-1].reshape(-1, 3)
    return ContextHead(
        mean=tuple(mean_X.tolist()),
        std=tuple(std_X.tolist()),
        knots=tuple((low, high) for low, high in knots_X2.tolist()),
        slopes=tuple((a, b, c) for a, b, c in slopes_X3.tolist()),
        offset=float(weight_P[-1]),
    )


def _newton(terms_NP: Floats, right_N: Floats, held_P: Floats) -> Floats:
    """The weights at which the penalised likelihood is largest; steps are halved until it rises. (P,)"""

    def objective(weight_P: Floats) -> float:
        z_N = terms_NP @ weight_P
        return float((np.logaddexp(0.0, z_N) - right_N * z_N).sum() + 0.5 * (held_P * weight_P**2).sum())

    weight_P = np.zeros(terms_NP.shape[1])
    weight_P[-1] = np.log(right_N.mean() / (1 - right_N.mean()))
    now = objective(weight_P)
    for _ in range(_STEPS):
        p_N = 1 / (1 + np.exp(-np.clip(terms_NP @ weight_P, -50, 50)))
        slope_P = terms_NP.T @ (p_N - right_N) + held_P * weight_P
        bend_PP = (terms_NP * (p_N * (1 - p_N))[:, None]).T @ terms_NP + np.diag(held_P)
        step_P = np.linalg.solve(bend_PP, slope_P)
        share = 1.0
        while (then := objective(weight_P - share * step_P)) > now and share > 1e-4:
            share /= 2
        if then >= now - _CLOSE:
            break
        weight_P, now = weight_P - share * step_P, then
    return weight_P


def _loss(said_N: Floats, right_N: Floats) -> float:
    said_N = np.clip(said_N, 1e-6, 1 - 1e-6)
    return float(-(right_N * np.log(said_N) + (1 - right_N) * np.log1p(-said_N)).sum())


def _rights(known: Known) -> tuple[Floats, Floats]:
    """Whether each is right, nan where it is not known; (N,) each."""
    own_N, first_N = known.scores.probs_NK.argmax(axis=1), known.teacher_NK.argmax(axis=1)
    has_N = known.label_N >= 0
    if enough_labels(int(has_N.sum()), len(has_N)):
        student_N, teacher_N = (
            np.where(has_N, said_N == known.label_N, np.nan) for said_N in (own_N, first_N)
        )
        return student_N, teacher_N
    rows = np.arange(len(has_N))
    return known.teacher_NK[rows, own_N].astype(np.float64), known.teacher_NK[rows, first_N].astype(
        np.float64
    )


def _at_most(group_N: U64, there_N: Bools, most: int, seed: int) -> Bools:
    """Clips that are there of as many groups, drawn at random, as fit into ``most``; where none fits, so many clips of
    one of them. (N,)"""
    rows = np.flatnonzero(there_N)
    groups, which_M = np.unique(group_N[rows], return_inverse=True)
    size_G = np.bincount(which_M)
    taken, chosen_G = 0, np.zeros(len(groups), np.bool_)
    for group in np.argsort(draws_of(groups, seed + 1)).tolist():
        if taken + size_G[group] <= most:
            taken += int(size_G[group])
            chosen_G[group] = True
    kept = rows[chosen_G[which_M]] if taken else rows[which_M == 0][:most]
    kept_N = np.zeros(len(group_N), np.bool_)
    kept_N[kept] = True
    return kept_N
