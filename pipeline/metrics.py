"""How right a classifier is, and how well its confidence says when. Plain NumPy, float64 out.

Shapes: N clips (or videos), K classes, B draws.

Errors are counted by ``right_N`` (bool); a confidence is any score that is higher where one is surer. Equal confidences
share what the order among them would decide, so no result depends on the order of the rows.

Sources: ECE with bins of equal mass, Nguyen and O'Connor 2015; selective risk and AURC, Geifman and El-Yaniv 2017 and
2019; AUGRC, Traub et al. 2024 (arXiv 2407.01032); AUROC as the Mann-Whitney statistic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
A = TypeVar("A", bound=NDArray[Any])
_SMALLEST = np.finfo(np.float32).tiny

MIN_LABELS = 200
"""Or a label for half of the rows: with fewer, what the labels say is not gone by."""


@dataclass(frozen=True)
class Estimate:
    """A metric, and the middle 95 % of it over bootstrap draws of groups."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        def number(x: float) -> float | None:
            return None if np.isnan(x) else round(x, 6)

        return {"value": number(self.value), "low": number(self.low), "high": number(self.high)}


def enough_labels(known: int, count: int) -> bool:
    """Whether so many labels of ``count`` rows are enough to go by."""
    return known >= min(MIN_LABELS, count / 2)


def accuracy(right_N: NDArray[np.bool_]) -> float:
    """Share of ``right_N``."""
    return float(_some(right_N).mean())


def nll(probs_NK: NDArray[np.floating], label_N: NDArray[np.integer]) -> float:
    """Mean of -ln of the true class's probability, nats; a probability of 0 counts as the smallest float32."""
    p_N = _some(probs_NK)[np.arange(len(label_N)), label_N].astype(np.float64)
    return float(-np.log(np.maximum(p_N, _SMALLEST)).mean())


def brier(probs_NK: NDArray[np.floating], label_N: NDArray[np.integer]) -> float:
    """Mean over clips of the squared distance between the probabilities and the truth; 0 to 2."""
    error_NK = _some(probs_NK).astype(np.float64)
    error_NK[np.arange(len(label_N)), label_N] -= 1.0
    return float((error_NK**2).sum(axis=1).mean())


def ece(confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_], *, num_bins: int = 15) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over bins of equally many clips.

    Clips of equal confidence count with the mean of their ``right_N``.
    """
    order_N, right = _by_confidence(confidence_N, right_N)
    sorted_N = confidence_N[order_N].astype(np.float64)
    gaps = [
        abs(float(sorted_N[part].mean() - right[part].mean())) * len(part)
        for part in np.array_split(np.arange(len(right)), min(num_bins, len(right)))
    ]
    return sum(gaps) / len(right)


def auroc(score_N: NDArray[np.floating], positive_N: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative, ties counting half; nan where there is only one kind."""
    positives = int(_some(positive_N).sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(count) - (count - 1) / 2)[inverse_N]
    above = rank_N[positive_N].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def risk_coverage(confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage (N,) from 1/N to 1, and the error rate (N,) among the surest that are so many."""
    _, right = _by_confidence(confidence_N, right_N)
    count_N = np.arange(1, len(right) + 1, dtype=np.float64)
    return count_N / len(right), np.cumsum(1.0 - right) / count_N


def aurc(confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve: selective risk averaged over all coverages; lower is better."""
    return float(risk_coverage(confidence_N, right_N)[1].mean())


def augrc(confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_]) -> float:
    """Area under the generalised risk curve: the chance of an error that is kept, averaged over coverages; 0 to 1/2.

    Equals ``(1 - auroc) * acc * (1 - acc) + (1 - acc)**2 / 2``.
    """
    _, right = _by_confidence(confidence_N, right_N)
    kept_N = np.cumsum(1.0 - right)
    before_N = np.concatenate([[0.0], kept_N[:-1]])
    return float((kept_N + before_N).sum() / (2 * len(right) ** 2))


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    group_N: NDArray[np.generic],
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Floats:
    """``statistic`` of the rows of as many groups as there are, drawn with replacement; (B,).

    For a difference of two methods let ``statistic`` compute both on the same rows: the comparison is then paired. One
    group says nothing of the spread between groups: all draws are nan.
    """
    _, inverse_N = np.unique(_some(group_N), return_inverse=True)
    if not inverse_N.any():
        return np.full(num_draws, np.nan)
    order_N = np.argsort(inverse_N, kind="stable")
    rows = np.split(order_N, np.cumsum(np.bincount(inverse_N))[:-1])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(rows), len(rows)) for _ in range(num_draws))
    return np.array([statistic(np.concatenate([rows[i] for i in draw])) for draw in draws])


def mean_over_groups(value_N: Floats, group_N: NDArray[np.generic], *, num_draws: int = 1000) -> Estimate:
    """The mean of ``value_N``, and its interval over draws of groups."""
    draws = bootstrap(lambda at: float(value_N[at].mean()), group_N, num_draws=num_draws)
    return Estimate(float(value_N.mean()), *interval(draws))


def interval(draws_B: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle ``level`` of the draws that are numbers: percentiles; nan where there is none."""
    known = draws_B[~np.isnan(draws_B)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_around(value: float, draws_B: Floats, level: float = 0.95) -> tuple[float, float]:
    """``value`` and as many standard deviations of the draws to both sides as hold ``level`` of a normal distribution,
    from 0 on. For `ece`: resampled clips make every bin's distance larger, so that percentiles lie above the value."""
    known = draws_B[~np.isnan(draws_B)]
    if not len(known):
        return float("nan"), float("nan")
    half = (
        NormalDist().inv_cdf((1 + level) / 2) * float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    )
    return max(0.0, value - half), value + half


def _by_confidence(
    confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], Floats]:
    """The order from the surest on, and in that order ``right``, averaged over equal confidences."""
    order_N = np.argsort(-_some(confidence_N), kind="stable")
    _, inverse_N, count = np.unique(confidence_N[order_N], return_inverse=True, return_counts=True)
    mean = np.bincount(inverse_N, weights=right_N[order_N]) / count
    return order_N, mean[inverse_N]


def _some(values: A) -> A:
    if not len(values):
        raise ValueError("a metric needs at least one row")
    return values
