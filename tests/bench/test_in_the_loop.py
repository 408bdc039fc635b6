"""The table of arms: means over seeds, and each arm from the cache against each with the teacher in the loop."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from bench.distill_arms.in_the_loop import Arm, Run, table


def arm(name: str) -> Arm:
    nothing = cast(Any, None)
    return Arm(name, nothing, nothing, nothing, nothing)


def run(seconds: float, kl: list[float], right: list[float]) -> Run:
    return Run(seconds, 2 * seconds, 10.0, np.array(kl), np.array(right))


def test_arms_are_compared_over_their_seeds() -> None:
    runs = [
        [run(10, [0.2, 0.4], [1, np.nan]), run(30, [0.4, 0.6], [1, np.nan])],
        [run(100, [0.4, 0.8], [1, np.nan]), run(140, [0.4, 0.8], [0, np.nan])],
    ]
    lines = table([arm("cache"), arm("online")], runs, np.arange(2, dtype=np.uint64))
    cached, live = (line.split() for line in lines[1:3])
    assert cached[1:6] == ["20.0", "40.0", "10.0", "0.4000", "1.0000"]
    assert live[1:6] == ["120.0", "240.0", "10.0", "0.6000", "0.5000"]
    assert lines[3] == "cache against online: 6.00 times cheaper, 6.00 in CPU seconds"
    ratio = float(lines[4].split("ratio")[1].split()[0])
    assert ratio == pytest.approx(0.4 / 0.6, abs=1e-4)
    assert float(lines[5].split("difference")[1].split()[0]) == pytest.approx(0.5)
