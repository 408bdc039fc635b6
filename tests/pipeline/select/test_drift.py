"""The drift alarm: seldom false, soon where there is a drift, and the same whenever it is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.drift import drift
from pipeline.select.learn_then_test import p_value, upper_bound


@pytest.mark.parametrize("alpha", [0.02, 0.1])
def test_false_alarms_are_rarer_than_delta(alpha: float) -> None:
    rng = np.random.default_rng(1)
    alarms = sum(drift(rng.random(600) < alpha, alpha, 0.05).alarm for _ in range(1000))
    assert alarms <= 50 + 3 * 7  # 5 %, and three standard deviations


@pytest.mark.parametrize(("alpha", "risk", "soon"), [(0.02, 0.1, 300), (0.05, 0.2, 150), (0.1, 0.4, 80)])
def test_a_drift_is_found(alpha: float, risk: float, soon: int) -> None:
    rng = np.random.default_rng(2)
    found = [drift(rng.random(1000) < risk, alpha, 0.05).alarm_at for _ in range(200)]
    assert all(found) and np.median(found) < soon


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([0.05, 0.3]))
def test_an_alarm_stands_whatever_comes_after(losses: list[bool], alpha: float) -> None:
    whole = drift(losses, alpha, 0.1)
    alarms = [n for n in range(len(losses) + 1) if drift(losses[:n], alpha, 0.1).alarm]
    assert alarms == list(range(whole.alarm_at or len(losses) + 1, len(losses) + 1))
    assert whole.alarm == (whole.e_value >= 10) and whole.losses == sum(losses)


def test_levels_are_shares() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        drift([], 0.0, 0.05)
    assert drift([], 0.1, 0.05).alarm_at is None


@given(st.integers(1, 400), st.floats(0, 1))
def test_the_upper_bound_is_where_the_binomial_tail_is_delta(groups: int, share: float) -> None:
    losses = int(share * groups)
    bound = upper_bound(losses, groups, 0.05)
    assert losses / groups <= bound <= 1
    if losses < groups:
        assert p_value(losses, groups, bound) <= 0.05 + 1e-9
        assert p_value(losses, groups, max(1e-12, bound - 1e-6)) > 0.05 - 1e-9


def test_no_losses_of_149_groups_bound_the_risk_by_two_percent() -> None:
    assert 0.0195 < upper_bound(0, 149, 0.05) <= 0.02
    assert upper_bound(0, 0, 0.05) == upper_bound(5, 5, 0.05) == 1.0
