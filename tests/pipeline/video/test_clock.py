"""The clock's rules, one by one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.clock import FrameClock, nominal_frame_us

MS = Fraction(1, 1000)


def times(stamps: list[tuple[int | None, int | None]], **settings: bool) -> list[int]:
    clock = FrameClock(MS, 40_000, **settings)
    return [clock.tick(pts, dts, 40)[0] for pts, dts in stamps]


def test_zero_is_the_first_frame() -> None:
    assert times([(500, 0), (540, 40), (700, 80)]) == [0, 40_000, 200_000]


def test_missing_stamps_follow_the_forerunner() -> None:
    assert times([(None, None), (None, None)]) == [0, 40_000]
    assert times([(0, 0), (None, 50), (None, None)]) == [0, 50_000, 90_000]


def test_only_dts_is_for_avi() -> None:
    assert times([(1, 3), (4, 4), (6, 5), (5, 6), (7, None)], only_dts=True) == [0, 1000, 2000, 3000, 43_000]


def test_a_late_frame_and_a_new_beginning() -> None:
    assert times([(0, 0), (80, 0), (40, 0), (120, 0)]) == [0, 80_000, 80_000, 120_000]
    assert times([(9000, 0), (11_000, 0), (0, 0), (40, 0)]) == [0, 2_000_000, 2_040_000, 2_080_000]


@given(
    st.lists(st.tuples(st.none() | st.integers(-(10**6), 10**6), st.none() | st.integers(-(10**6), 10**6)))
)
def test_time_never_goes_back(stamps: list[tuple[int | None, int | None]]) -> None:
    got = times(stamps)
    assert got == sorted(got)


@given(st.integers(0, 10**7), st.sampled_from([MS, Fraction(1, 90_000), Fraction(1001, 30_000)]))
def test_ticks_and_microseconds(time_us: int, base: Fraction) -> None:
    clock = FrameClock(base, 40_000)
    clock.tick(7, 7, 1)
    ticks = clock.to_ticks(time_us)
    assert (ticks - 7) * base * 10**6 <= time_us < (ticks - 6) * base * 10**6


@pytest.mark.parametrize(
    ("rate", "frame_us"),
    [(Fraction(25), 40_000), (None, 40_000), (Fraction(0), 40_000), (Fraction(90_000), 40_000)],
)
def test_nominal_frame(rate: Fraction | None, frame_us: int) -> None:
    assert nominal_frame_us(rate) == frame_us
