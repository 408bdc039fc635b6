"""Metrics against closed forms, brute force, and each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import (
    accuracy,
    augrc,
    aurc,
    auroc,
    bootstrap,
    brier,
    ece,
    interval,
    interval_around,
    nll,
    risk_coverage,
)

# Few distinct confidences, so that ties are common.
ROWS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c / 5 for c, _ in rows]), np.array([r for _, r in rows])


def test_probability_scores_of_known_predictions() -> None:
    probs_NK = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    assert nll(probs_NK, np.array([0, 1])) == pytest.approx(math.log(2) / 2)
    assert brier(probs_NK, np.array([0, 1])) == pytest.approx((0.25 + 2 * 0.0625) / 2)
    assert brier(probs_NK[1:], np.array([0])) == 2.0
    assert math.isfinite(nll(probs_NK, np.array([0, 0])))
    assert accuracy(np.array([True, False, True, True])) == 0.75


@given(ROWS)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    score_N, positive_N = arrays(rows)
    pairs = list(itertools.product(score_N[positive_N], score_N[~positive_N]))
    if not pairs:
        assert math.isnan(auroc(score_N, positive_N))
    else:
        brute = sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)
        assert auroc(score_N, positive_N) == pytest.approx(brute)


@given(ROWS)
def test_augrc_is_what_auroc_and_accuracy_make_it(rows: list[tuple[int, bool]]) -> None:
    confidence_N, right_N = arrays(rows)
    acc, roc = accuracy(right_N), auroc(confidence_N, right_N)
    ranked = 0.0 if math.isnan(roc) else (1 - roc) * acc * (1 - acc)
    assert augrc(confidence_N, right_N) == pytest.approx(ranked + (1 - acc) ** 2 / 2)


@given(ROWS, st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows: list[tuple[int, bool]], random: object) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for metric in (aurc, augrc, auroc, ece):
        assert metric(*arrays(rows)) == pytest.approx(metric(*arrays(shuffled)), nan_ok=True)


@given(ROWS)
def test_all_covered_is_all_at_risk_and_the_right_ones_first_is_best(rows: list[tuple[int, bool]]) -> None:
    confidence_N, right_N = arrays(rows)
    coverage_N, risk_N = risk_coverage(confidence_N, right_N)
    assert coverage_N[-1] == 1.0
    assert risk_N[-1] == pytest.approx(1 - accuracy(right_N))
    assert aurc(right_N.astype(float), right_N) <= aurc(confidence_N, right_N) + 1e-12
    assert aurc(-right_N.astype(float), right_N) >= aurc(confidence_N, right_N) - 1e-12


def test_selective_risk_of_four_clips_by_hand() -> None:
    confidence_N, right_N = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    np.testing.assert_allclose(risk_coverage(confidence_N, right_N)[1], [0, 1 / 2, 1 / 3, 2 / 4])
    assert aurc(confidence_N, right_N) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_calibration_error_of_known_bins() -> None:
    confidence_N = np.repeat([0.9, 0.6], 50)
    right_N = np.concatenate([np.arange(50) < 45, np.arange(50) < 20])
    assert ece(confidence_N, right_N, num_bins=2) == pytest.approx((0.0 + 0.2) / 2)
    assert ece(np.ones(7), np.zeros(7, np.bool_)) == 1.0


def test_bootstrap_draws_whole_groups() -> None:
    group_N = np.array(["a", "a", "b", "c", "c", "c"])
    sizes = {"a": 2, "b": 1, "c": 3}

    def whole(rows: np.ndarray) -> float:
        drawn = group_N[rows]
        assert all((drawn == g).sum() % n == 0 for g, n in sizes.items())
        return float(len(rows))

    assert set(bootstrap(whole, group_N, num_draws=200)) <= set(range(3, 10))


def test_bootstrap_interval_of_a_mean_is_about_the_normal_one() -> None:
    values_N = np.random.default_rng(0).normal(3.0, 1.0, 400)
    draws_B = bootstrap(lambda rows: float(values_N[rows].mean()), np.arange(400), num_draws=2000)
    low, high = interval(draws_B)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert low < 3.0 < high
    again_B = bootstrap(lambda rows: float(values_N[rows].mean()), np.arange(400), num_draws=2000)
    np.testing.assert_array_equal(draws_B, again_B)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        accuracy(np.zeros(0, np.bool_))
    assert all(map(math.isnan, interval(np.array([np.nan]))))


def test_the_interval_of_a_calibration_error_holds_its_value_and_is_as_wide_as_it_spreads() -> None:
    """Percentiles of the draws lie above it in every third case."""
    rng, found, spread, below = np.random.default_rng(0), [], [], 0
    for _ in range(40):
        confidence = rng.uniform(0.5, 1, 400)
        right = rng.random(400) < confidence
        value = ece(confidence, right)
        draws = bootstrap(lambda at, c=confidence, r=right: ece(c[at], r[at]), np.arange(400), num_draws=60)
        low, high = interval_around(value, draws)
        assert 0 <= low <= value <= high
        found.append(value)
        spread.append((high - low) / (2 * 1.96))
        below += value < interval(draws)[0]
    assert below > 5
    assert np.mean(spread) == pytest.approx(np.std(found), rel=0.5)


def test_one_group_says_nothing_of_the_spread() -> None:
    draws = bootstrap(lambda at: float(len(at)), np.zeros(5), num_draws=7)
    assert len(draws) == 7 and np.isnan(draws).all()
    assert all(math.isnan(x) for x in (*interval(draws), *interval_around(0.5, draws)))
