"""Policies by name: from a spec to the rule, and from a rule to members of it that defer ever less.

A grid goes over what a policy is turned by, from the safest member on. Thresholds lie midway between scores that were
seen, so that a rounding elsewhere turns no clip over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.select.budget import Budget, price_of
from pipeline.select.coarse_to_fine import CoarseToFine
from pipeline.select.decision import Policy
from pipeline.select.passages import ByPassage, by_passage
from pipeline.select.scores import ClipScores, deferral
from pipeline.select.thresholds import ClipThreshold, VideoThreshold
from pipeline.select.top_k import RandomK, TopK, UniformK
from pipeline.select.video_part import VideoPart
from pipeline.select.whole import DenseTeacher, StudentAlone
from schemas.policy import AggregationName, PolicySpec

SHARES = (
    1.0,
    0.9,
    0.8,
    0.7,
    0.6,
    0.5,
    0.45,
    0.4,
    0.35,
    0.3,
    0.25,
    0.2,
    0.15,
    0.1,
    0.075,
    0.05,
    0.025,
    0.01,
    0.0,
)
"""Of clips that are deferred, on a grid."""

BEYOND = 100.0
"""No score is as large, nor its negative."""

PARTS = (1.0, 0.75, 0.5, 0.34)
"""Of the clips of a video in doubt."""

KS = (1, 2, 3, 4, 6, 8, 12, 16)


def usual_aggregation(kind: str) -> AggregationName:
    """How videos are pooled that a policy of a kind decides on, where nothing else is said."""
    return "teacher-only" if kind == "video-part" else "replace-mean"


WITHOUT_SCORE = ("student-alone", "dense", "uniform-k", "random-k", "coarse-to-fine")
"""Kinds that go by no score of single clips, where nothing else is said."""

_STARTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "student-alone": {},
        "dense": {},
        "clip-threshold": {"threshold": 0.0},
        "video-threshold": {"threshold": 0.0},
        "video-part": {"threshold": 0.0, "part": 1.0},
        "top-k": {"k": 1},
        "uniform-k": {"k": 1},
        "random-k": {"k": 1},
        "budget": {"share": 0.0},
        "coarse-to-fine": {"strides": (4, 2, 1), "exit_margin": 0.0},
    }
)


def bases_of(
    kinds: Sequence[str],
    scores: Sequence[str],
    passage: float | None = None,
    stride: float | None = None,
) -> list[PolicySpec]:
    """What grids start from: each kind with each score, where it goes by one; by passages of so many seconds, of clips
    that are ``stride`` seconds apart."""
    by = {"passage": passage, "stride": stride}
    return [
        PolicySpec(**{"kind": kind, "score": score, **_STARTS[kind], **part, **by})
        for kind, score in product(kinds, scores)
        if kind not in WITHOUT_SCORE or score == scores[0]
        for part in ([{"part": p} for p in PARTS] if kind == "video-part" else [{}])
    ]


def policy_of(spec: PolicySpec) -> Policy:
    """The rule that a spec says."""
    rule = _rule(spec)
    return rule if spec.passage is None else ByPassage(rule, spec.passage, spec.stride or 0.0)


def score_of(spec: PolicySpec, scores: ClipScores) -> NDArray[np.float64] | None:
    """The score that a policy goes by, where it goes by one; (N,)."""
    if not hasattr(_rule(spec), "score"):
        return None
    return deferral(passages_in(spec, scores), spec.score)


def passages_in(spec: PolicySpec, scores: ClipScores) -> ClipScores:
    """The clips as a policy sees them: with passages for videos, where it decides by them."""
    return scores if spec.passage is None else by_passage(scores, spec.passage, spec.stride or 0.0)


def _rule(spec: PolicySpec) -> Policy:
    score, threshold = spec.score, _number(spec.threshold)
    k, share = spec.k or 1, spec.share or 0.0
    match spec.kind:
        case "student-alone":
            return StudentAlone(score)
        case "dense":
            return DenseTeacher()
        case "clip-threshold":
            return ClipThreshold(score, threshold)
        case "video-threshold":
            return VideoThreshold(score, threshold)
        case "video-part":
            return VideoPart(score, threshold, spec.part or 1.0, spec.price)
        case "top-k":
            return TopK(score, k, threshold)
        case "uniform-k":
            return UniformK(k)
        case "random-k":
            return RandomK(k, spec.seed, spec.with_student)
        case "budget":
            return Budget(score, share)
        case "coarse-to-fine":
            return CoarseToFine(spec.strides, spec.exit_margin or 0.0, ClipThreshold(score, threshold))


def grid_of(base: PolicySpec, scores: ClipScores, shares: Sequence[float] = ()) -> list[PolicySpec]:
    """Members of a policy from one that defers most to one that defers least, by scores of videos that are not to be
    certified on; with some that defer just these ``shares``. What ``base`` says of anything else stands."""
    wanted = sorted({*SHARES, *shares}, reverse=True)
    scores = passages_in(base, scores)

    def with_(**settings: object) -> PolicySpec:
        return PolicySpec(**{**base.model_dump(), **settings})

    match base.kind:
        case "student-alone" | "dense":
            return [base]
        case "clip-threshold":
            prices = _prices(deferral(scores, base.score), wanted)
            return [with_(threshold=p) for p in prices]
        case "video-threshold":
            mean_V = np.bincount(scores.video_N, deferral(scores, base.score)) / scores.size_V
            return [with_(threshold=p) for p in _prices(mean_V, wanted)]
        case "video-part":
            doubt_V = VideoPart(base.score, 0.0, base.part or 1.0, base.price).doubt(scores)
            return [with_(threshold=p) for p in _prices(doubt_V, wanted)]
        case "top-k" | "uniform-k" | "random-k":
            most = int(scores.size_V.max())
            return [with_(k=k) for k in sorted({*(k for k in KS if k < most), most}, reverse=True)]
        case "budget":
            return [with_(share=share) for share in wanted]
        case "coarse-to-fine":
            return [
                with_(exit_margin=m) for m in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
            ]


def _prices(value_X: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Thresholds, finite ones: each lets another share of the values pass."""
    prices = (float(np.clip(price_of(value_X, share), -BEYOND, BEYOND)) for share in shares)
    return list(dict.fromkeys(prices))


def _number(threshold: float | None) -> float:
    return -np.inf if threshold is None else threshold
