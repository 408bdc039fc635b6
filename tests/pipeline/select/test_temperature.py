"""The temperature that was put in is found again."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.select.temperature import LEAST, fit_temperature
from pipeline.uncertainty import softmax


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_it_finds_what_the_logits_were_multiplied_by(true: float) -> None:
    rng = np.random.default_rng(0)
    honest_NK = rng.normal(0, 2, (20_000, 5)).astype(np.float32)
    draws = rng.random((len(honest_NK), 1))
    label_N = (softmax(honest_NK).cumsum(axis=1) < draws).sum(axis=1).clip(0, 4)
    label_N[:50] = -1
    assert fit_temperature(honest_NK * np.float32(true), label_N) == pytest.approx(true, rel=0.05)


def test_a_student_that_is_always_right_may_be_as_sure_as_it_gets() -> None:
    logits_NK = np.eye(3, dtype=np.float32)
    assert LEAST <= fit_temperature(logits_NK, np.arange(3)) < 1.2 * LEAST
    with pytest.raises(ValueError, match="no clip has one"):
        fit_temperature(logits_NK, np.full(3, -1))
