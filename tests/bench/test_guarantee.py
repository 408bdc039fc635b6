"""The bench of the guarantee counts what it says."""

from __future__ import annotations

import numpy as np
import pytest

from bench.guarantee import made_up, resplits, sequences_from
from pipeline.select.calibrate import disagreements
from pipeline.select.policies import policy_of


def test_violations_are_counted_where_the_risk_is_just_above() -> None:
    group_V = np.repeat(np.arange(400), 2)
    rng = np.random.default_rng(0)
    nothing = np.zeros(800, bool)
    bad = rng.random(800) < 0.3
    shares = np.array([1.0, 0.5, 0.1])
    found = resplits(
        np.array([nothing, nothing, bad]), group_V, shares, alpha=0.1, delta=0.05, num_groups=150, draws=50
    )
    assert (found.violations, found.refused, found.beyond_dense) == (0, 0, 50)
    assert found.mean_share == pytest.approx(0.5)
    # All members alike and just too risky: each certification is a violation, and they come as often as delta says.
    just = np.zeros(800, bool)
    just[: round(0.105 * 800)] = True
    found = resplits(
        np.array([nothing, just]), group_V, shares[:2], alpha=0.1, delta=0.2, num_groups=300, draws=400
    )
    assert found.violations == found.beyond_dense and 0.02 < found.violations / 400 < 0.2
    few = resplits(np.array([nothing]), group_V, shares[:1], alpha=0.1, delta=0.05, num_groups=20, draws=10)
    assert few.refused == 10


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_guarantee_holds_on_made_up_scores(alike: float) -> None:
    population, fitted = made_up(3000, alike, seed=1), made_up(200, alike, seed=2)
    for members in sequences_from(fitted).values():
        losses = disagreements(population, members, "replace-mean")
        shares = np.array([policy_of(m).select(population.scores).teacher_N.mean() for m in members])
        found = resplits(losses, population.group_V, shares, alpha=0.1, delta=0.05, num_groups=200, draws=200)
        assert found.violations <= 16 and found.refused == 0 and found.beyond_dense > 150
