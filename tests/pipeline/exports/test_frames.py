"""Numbers of frames against the frames themselves."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.frames import FrameSpan, frame_span

RATES = st.sampled_from([1.0, 24.0, 25.0, 30.0, 30000 / 1001, 60.0, 0.5])


@given(RATES, st.integers(0, 500), st.integers(1, 200))
def test_frames_that_begin_within_are_shown(fps: float, first: int, number: int) -> None:
    """Bounds between frames leave no doubt, and on a frame's time, rounded to a microsecond, it is that frame."""
    times = [round(n * 1e6 / fps) for n in (first, first + number)]
    wanted = FrameSpan(first, first + number - 1)
    assert frame_span(*times, fps) == wanted
    half_us = round(5e5 / fps)
    assert frame_span(times[0] - half_us, times[1] - half_us, fps) == wanted


@given(RATES, st.lists(st.integers(0, 3_000_000), min_size=2, max_size=9, unique=True))
def test_stretches_that_touch_share_no_frame(fps: float, cuts: list[int]) -> None:
    cuts.sort()
    spans = [frame_span(a, b, fps) for a, b in pairwise(cuts)]
    frames = [n for s in spans if s is not None for n in range(s.first, s.last + 1)]
    whole = frame_span(cuts[0], cuts[-1], fps)
    assert frames == ([] if whole is None else list(range(whole.first, whole.last + 1)))


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf])
def test_without_a_rate_there_are_no_frames(fps: float) -> None:
    assert frame_span(0, 1_000_000, fps) is None
