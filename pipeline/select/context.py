"""Confidence in context: how likely each model is right about a clip, by what the student says of the whole video.

A clip of which the student says something else than of its neighbours is more likely wrong than its own probabilities
tell. Heads are additive logistic regressions on `inputs`; `pipeline.select.context_fit` fits them.

Shapes: N clips, V videos, K classes, X inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.select.scores import ClipScores, first_by_video
from pipeline.uncertainty import entropy, margin
from schemas.context import ContextHead, ContextHeads

Floats = NDArray[np.float64]

_SMALLEST = 1e-8
_EDGE = 1e-6
_FARTHEST = 6.0
"""In spreads: no input is farther out."""


def inputs(scores: ClipScores) -> Floats:
    """What of a clip, and of its video, says who is right; (N, 14). The student has looked at all of the clips. Nothing
    of the confidence heads: on some of the clips that these numbers are fitted on they have learnt the answer."""
    s, n_N = scores, scores.size_V[scores.video_N].astype(np.float64)
    probs_NK = s.probs_NK.astype(np.float64)
    rows_N, own_N = np.arange(len(s)), s.probs_NK.argmax(axis=1)
    pooled_VK, ahead_VK = pooled(s)
    own_pooled_N = pooled_VK[s.video_N, own_N]
    msp_N = probs_NK[rows_N, own_N]
    others_N = np.where(n_N > 1, (own_pooled_N * n_N - msp_N) / np.maximum(n_N - 1, 1), msp_N)
    entropy_N = entropy(s.probs_NK).astype(np.float64)

    def of_video(value_V: Floats) -> Floats:
        return np.asarray(value_V[s.video_N])

    def of_neighbour(step: int) -> Floats:
        return _logit(probs_NK[_neighbour(s, step), own_N])

    columns = (
        _logit(msp_N),
        margin(s.probs_NK).astype(np.float64),
        entropy_N,
        (pooled_VK.argmax(axis=1)[s.video_N] == own_N).astype(np.float64),
        _logit(own_pooled_N),
        _logit(others_N),
        of_video(pooled_VK.max(axis=1)),
        of_video(margin(pooled_VK.astype(np.float32)).astype(np.float64)),
        np.log(n_N),
        of_video(_mean_by_video(s, entropy_N[:, None])[:, 0]),
        of_video(_logit(ahead_VK.max(axis=1))),
        _logit(ahead_VK[s.video_N, own_N]),
        of_neighbour(-1),
        of_neighbour(1),
    )
    return np.stack(columns, axis=1)


def video_inputs(scores: ClipScores) -> Floats:
    """What of a video says whether the student's word on it is right; (V, 12). It has looked at all of its clips."""
    s, probs_NK = scores, scores.probs_NK.astype(np.float64)
    pooled_VK, ahead_VK = pooled(s)
    said_V, margin_N = pooled_VK.argmax(axis=1), margin(s.probs_NK).astype(np.float64)
    says_so_N = (probs_NK.argmax(axis=1) == said_V[s.video_N]).astype(np.float64)
    surest_N = first_by_video(s, margin_N) == 0
    n_V = s.size_V.astype(np.float64)

    def mean(value_N: Floats) -> Floats:
        return _mean_by_video(s, value_N[:, None])[:, 0]

    columns = (
        _logit(ahead_VK.max(axis=1)),
        margin(ahead_VK.astype(np.float32)).astype(np.float64),
        _logit(pooled_VK.max(axis=1)),
        margin(pooled_VK.astype(np.float32)).astype(np.float64),
        mean(margin_N),
        mean(entropy(s.probs_NK).astype(np.float64)),
        mean(says_so_N),
        (ahead_VK.argmax(axis=1) == said_V).astype(np.float64),
        np.log(n_V),
        1 / n_V,
        _logit(margin_N[surest_N]),
        says_so_N[surest_N],
    )
    return np.stack(columns, axis=1)


def pooled(scores: ClipScores) -> tuple[Floats, Floats]:
    """The mean of the student's probabilities over the clips of each video, and their geometric mean; (V, K) each."""
    probs_NK = scores.probs_NK.astype(np.float64)
    ahead_VK = _mean_by_video(scores, np.log(np.maximum(probs_NK, _SMALLEST)))
    ahead_VK = np.exp(ahead_VK - ahead_VK.max(axis=1, keepdims=True))
    return _mean_by_video(scores, probs_NK), ahead_VK / ahead_VK.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Context:
    """A `pipeline.select.scores.InVideo`. Videos have heads of their own where ``number_of`` says so, the first ones
    else: those of the fold that a video was not fitted in, or of its student."""

    heads: tuple[ContextHeads, ...]
    number_of: Mapping[str, int] | None = None

    def rights(self, scores: ClipScores) -> tuple[Floats, Floats, Floats]:
        found = tuple(np.full(len(scores), np.nan) for _ in range(3))
        seen_N = ~np.isnan(scores.probs_NK[:, 0])
        if seen_N.any():
            seen = scores.only(seen_N)
            x_NX, of_video_NX = inputs(seen), video_inputs(seen)[seen.video_N]
            number_N = self._number_of_clip(seen)
            for number, heads in enumerate(self.heads):
                rows = number_N == number
                at = np.flatnonzero(seen_N)[rows]
                found[0][at], found[1][at] = (right(h, x_NX[rows]) for h in (heads.student, heads.teacher))
                found[2][at] = right(heads.video, of_video_NX[rows])
        student_N, teacher_N, video_N = found
        return student_N, teacher_N, video_N

    def _number_of_clip(self, scores: ClipScores) -> NDArray[np.int64]:
        if self.number_of is None:
            return np.zeros(len(scores), np.int64)
        of_V = np.array([self.number_of.get(i, 0) for i in scores.ids_V], np.int64)
        return np.asarray(of_V[scores.video_N])


def merged(parts: Sequence[tuple[Context, Sequence[str]]]) -> Context:
    """One for videos of which each part has its own."""
    heads: list[ContextHeads] = []
    number_of: dict[str, int] = {}
    for context, ids in parts:
        own = context.number_of or {}
        number_of |= {i: len(heads) + own.get(i, 0) for i in ids}
        heads += context.heads
    return Context(tuple(heads), number_of)


def spread(x_NX: Floats, mean_X: Floats, std_X: Floats) -> Floats:
    """Inputs in units of their spread; (N, X)."""
    return np.asarray(np.clip((x_NX - mean_X) / std_X, -_FARTHEST, _FARTHEST))


def bent(z_NX: Floats, knots_X2: Floats) -> Floats:
    """Each input, and what of it is above its knots; (N, X, 3)."""
    above = (np.maximum(z_NX - knots_X2[:, k], 0.0) for k in range(2))
    return np.stack([z_NX, *above], axis=2)


def right(head: ContextHead, x_NX: Floats) -> Floats:
    """How likely one is right; (N,). Row by row the same, whatever rows stand beside: no BLAS."""
    terms_NX3 = bent(spread(x_NX, np.array(head.mean), np.array(head.std)), np.array(head.knots))
    total_N = np.einsum("nxt,xt->n", terms_NX3, np.array(head.slopes)) + head.offset
    return np.asarray(1 / (1 + np.exp(-np.clip(total_N, -50, 50))))


def _logit(p: NDArray[np.floating]) -> Floats:
    p64 = np.clip(np.asarray(p, np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(p64) - np.log1p(-p64))


def _mean_by_video(scores: ClipScores, value_NX: Floats) -> Floats:
    """(V, X)"""
    first_V = np.searchsorted(scores.video_N, np.arange(scores.num_videos))
    return np.asarray(np.add.reduceat(value_NX, first_V) / scores.size_V[:, None])


def _neighbour(scores: ClipScores, step: int) -> NDArray[np.int64]:
    """The row of the clip before (-1) or after (1) in the same video, a clip's own where there is none; (N,)."""
    rows_N = np.arange(len(scores))
    next_N = np.clip(rows_N + step, 0, len(scores) - 1)
    return np.where(scores.video_N[next_N] == scores.video_N, next_N, rows_N)
