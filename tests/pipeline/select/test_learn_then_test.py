"""The guarantee: exact tails, the numbers of groups it takes, and that it holds as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from pipeline.select.learn_then_test import certified, groups_needed, one_of_each_group, p_value
from tests.pipeline.select.made_up import made_up


@given(st.integers(1, 3000), st.floats(0.001, 0.6), st.data())
def test_the_tail_is_the_binomial_one(groups: int, alpha: float, data: st.DataObject) -> None:
    losses = data.draw(st.integers(0, groups))
    expected = float(binom.cdf(losses, groups, alpha))
    assert p_value(losses, groups, alpha) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_how_many_groups_it_takes() -> None:
    assert groups_needed(0.02, 0.05) == 149
    assert groups_needed(0.05, 0.05) == 59
    assert groups_needed(0.1, 0.1) == 22
    more = groups_needed(0.02, 0.05, risk=0.01)
    assert more is not None and more > 149
    assert p_value(int(np.ceil(0.01 * more)), more, 0.02) <= 0.05
    assert groups_needed(0.02, 0.05, risk=0.02) is None


def test_testing_stops_at_the_first_that_fails() -> None:
    losses = np.zeros((4, 200), bool)
    losses[2, :20] = True  # the fourth would pass again
    number, tested = certified(losses, 0.05, 0.05)
    assert number == 2 and len(tested) == 3 and tested[0] == pytest.approx(0.95**200) and tested[2] > 0.05
    assert certified(losses[:2], 0.05, 0.05)[0] == 2
    assert certified(losses[:, :50], 0.05, 0.05)[0] == 0  # too few to say anything
    with pytest.raises(ValueError, match="without groups"):
        certified(losses[:, :0], 0.05, 0.05)
    with pytest.raises(ValueError, match="3 losses of 2 groups"):
        p_value(3, 2, 0.1)


def test_the_guarantee_holds_as_often_as_it_says() -> None:
    """Of members of known risk, the last that is certified is above alpha in no more than delta of the draws."""
    rng, alpha, delta = np.random.default_rng(1), 0.05, 0.1
    risk_M = np.linspace(0, 0.15, 31)
    wrong = 0
    for _ in range(2000):
        number, _ = certified(rng.random(300) < risk_M[:, None], alpha, delta)  # nested, as of thresholds
        wrong += number > 0 and risk_M[number - 1] > alpha
    assert wrong / 2000 <= delta + 3 * np.sqrt(delta * (1 - delta) / 2000)
    assert wrong > 0  # it is not merely careful


def test_one_video_of_each_group_by_its_name() -> None:
    known = made_up(num_videos=60)
    chosen = one_of_each_group(known.group_V, known.scores.hash_V, salt=7)
    assert np.array_equal(known.group_V[chosen], np.unique(known.group_V))
    keep = np.setdiff1d(np.arange(60), chosen[:1])  # without the first group's choice, the others stand
    again = keep[one_of_each_group(known.group_V[keep], known.scores.hash_V[keep], salt=7)]
    assert np.array_equal(again[1:], chosen[1:])
    other = one_of_each_group(known.group_V, known.scores.hash_V, salt=8)
    assert 0.2 < np.mean(other == chosen) < 0.8
