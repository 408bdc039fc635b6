"""Fit what says how likely student and teacher are right about a clip in its video (`pipeline.select.context`).

Penalised maximum likelihood by Newton's method; how strongly slopes are held down is chosen by cross-validation over
groups.

Shapes: N clips, V videos, G groups, X inputs, P terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.draws import draws_of, folds
from pipeline.metrics import enough_labels
from pipeline.select.context import Context, Floats, bent, inputs, pooled, right, spread, video_inputs
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
        s = known.scores
        self._ids, first_V = s.ids_V, np.searchsorted(s.video_N, np.arange(s.num_videos))
        student_N, teacher_N, video_V = _rights(known)
        x_NX, group_N = inputs(s), known.group_V[s.video_N]
        self._three = (
            _Rows.of(x_NX, student_N, group_N, seed),
            _Rows.of(x_NX, teacher_N, group_N, seed),
            _Rows.of(video_inputs(s), video_V, known.group_V, seed),
        )
        self._fold_V = self._three[0].fold_R[first_V]
        self.heads = self._heads(None)

    def for_others(self) -> Context:
        """For videos that they were not fitted on."""
        return Context((self.heads,))

    def for_these(self) -> Context:
        """For the videos that they were fitted on."""
        heads = tuple(self._heads(fold) for fold in range(_FOLDS))
        return Context(heads, dict(zip(self._ids, self._fold_V.tolist(), strict=True)))

    def _heads(self, without: int | None) -> ContextHeads:
        student, teacher, video = (rows.head(without) for rows in self._three)
        clips = int(self._three[0].some(without).sum())
        return ContextHeads(student=student, teacher=teacher, video=video, clips=clips)


@dataclass(frozen=True)
class _Rows:
    """What one head is fitted on: R clips, or videos."""

    x_RX: Floats
    right_R: Floats
    fold_R: NDArray[np.int64]
    kept_R: Bools
    penalty: float

    @classmethod
    def of(cls, x_RX: Floats, right_R: Floats, group_R: U64, seed: int) -> _Rows:
        """With the penalty at which other groups are foretold best; the largest where there are no others."""
        kept_R = _at_most(group_R, ~np.isnan(right_R), MOST_CLIPS, seed)
        rows = cls(x_RX, right_R, folds(group_R, _FOLDS, seed=seed), kept_R, 0.0)
        tried = [replace(rows, penalty=penalty) for penalty in PENALTIES]
        losses = [r._loss() for r in tried]
        return tried[int(np.argmin(losses))] if np.isfinite(losses).all() else tried[-1]

    def some(self, without: int | None) -> Bools:
        """The rows that count, but for those of a fold."""
        return self.kept_R if without is None else self.kept_R & (self.fold_R != without)

    def head(self, without: int | None) -> ContextHead:
        """Fitted on them; where there are none, one that says the same of every row."""
        rows_R = self.some(without)
        if not rows_R.any():
            return _fitted(self.x_RX, self.right_R, self.kept_R, _NO_SLOPES)
        return _fitted(self.x_RX, self.right_R, rows_R, self.penalty)

    def _loss(self) -> float:
        """Cross-validated; nan where nothing can be held out."""
        losses = []
        for fold in range(_FOLDS):
            held_R = self.kept_R & (self.fold_R == fold)
            if held_R.any() and self.some(fold).any():
                said_M, right_M = right(self.head(fold), self.x_RX[held_R]), self.right_R[held_R]
                said_M = np.clip(said_M, 1e-6, 1 - 1e-6)
                losses.append(-(right_M * np.log(said_M) + (1 - right_M) * np.log1p(-said_M)).sum())
        return float(np.sum(losses)) if losses else float("nan")


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


def _rights(known: Known) -> tuple[Floats, Floats, Floats]:
    """Whether each is right about a clip, (N,) each, and the student about a video, (V,); nan where it is not known."""
    s, label_V = known.scores, known.label_V
    own_N, first_N = s.probs_NK.argmax(axis=1), known.teacher_NK.argmax(axis=1)
    said_V = pooled(s)[0].argmax(axis=1)
    has_N = known.label_N >= 0
    if enough_labels(int(has_N.sum()), len(has_N)):
        student_N, teacher_N = (
            np.where(has_N, word_N == known.label_N, np.nan) for word_N in (own_N, first_N)
        )
        return student_N, teacher_N, np.where(label_V >= 0, said_V == label_V, np.nan)
    rows, teacher_NK = np.arange(len(has_N)), known.teacher_NK.astype(np.float64)
    of_video_N = teacher_NK[rows, said_V[s.video_N]]
    video_V = np.bincount(s.video_N, of_video_N, s.num_videos) / s.size_V
    return teacher_NK[rows, own_N], teacher_NK[rows, first_N], video_V


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
