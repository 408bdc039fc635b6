"""Targets of shifted windows, against overlaps counted instant by instant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.snapshot_rows import ROW
from pipeline.distill.windows import joined_to_next, shifted


def by_overlap(window: range, clips: list[range], probs_JK: np.ndarray) -> np.ndarray:
    """The mean over clips, each weighted by the instants that it shares with the window."""
    shared_J = np.array([sum(t in clip for t in window) for clip in clips], np.float64)
    return shared_J / shared_J.sum() @ probs_JK


@given(st.integers(0, 7), st.integers(0, 2**16))
def test_shifting_pools_two_clips_that_touch(offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), (2, 3)).astype(np.float32)
    found = shifted(probs[0], probs[1], np.full(3, offset), 8)
    for n in range(3):
        expected = by_overlap(range(offset, offset + 8), [range(8), range(8, 16)], probs[:, n])
        assert found[n] == pytest.approx(expected, abs=1e-6)


def rows(*entries: tuple[int, int, int, bool]) -> np.ndarray:
    """Rows of (video, start, end, damaged)."""
    out = np.zeros(len(entries), ROW)
    for i, (video, start, end, damaged) in enumerate(entries):
        out[i]["video"], out[i]["start_us"], out[i]["end_us"], out[i]["damaged"] = video, start, end, damaged
    return out


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ((0, 0, 10, False), (0, 10, 20, False), True),
        ((0, 0, 10, False), (1, 10, 20, False), False),  # of another video
        ((0, 0, 10, False), (0, 12, 22, False), False),  # a gap
        ((0, 0, 10, False), (0, 7, 17, False), False),  # the tail, which overlaps
        ((0, 0, 6, False), (0, 6, 16, False), False),  # a short clip repeats its last frame
        ((0, 0, 10, True), (0, 10, 20, False), False),
        ((0, 0, 10, False), (0, 10, 20, True), False),
    ],
)
def test_windows_cross_from_whole_clips_to_those_that_touch(
    first: tuple[int, int, int, bool], second: tuple[int, int, int, bool], joined: bool
) -> None:
    both = rows(first, second)
    assert joined_to_next(both, np.ones(2, np.bool_), 10).tolist() == [joined, False]
    assert not joined_to_next(both, np.array([True, False]), 10).any()
