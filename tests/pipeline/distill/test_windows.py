"""Targets of shifted windows, against overlaps counted microsecond by microsecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.snapshot_rows import ROW
from pipeline.distill.windows import joined_to_next, overlaps, pool, shifted

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=6)


@given(spans, st.tuples(st.integers(0, 60), st.integers(1, 30)))
def test_overlaps_are_those_counted_one_by_one(clips: list[tuple[int, int]], window: tuple[int, int]) -> None:
    starts = np.array([s for s, _ in clips])
    ends = np.array([s + n for s, n in clips])
    low, high = window[0], window[0] + window[1]
    shared = [sum(s <= t < e for t in range(low, high)) for s, e in zip(starts, ends, strict=True)]
    covered = sum(any(s <= t < e for s, e in zip(starts, ends, strict=True)) for t in range(low, high))
    weights, share = overlaps((low, high), starts, ends)
    assert share == pytest.approx(covered / window[1])
    assert weights == pytest.approx(np.array(shared) / max(1, sum(shared)))


def test_a_window_on_a_clip_has_its_target() -> None:
    probs = np.array([[0.7, 0.3], [0.1, 0.9]])
    pooled, share = pool((10, 20), np.array([10, 20]), np.array([20, 30]), probs)
    assert pooled == pytest.approx(probs[0]) and share == 1.0
    half, _ = pool((15, 25), np.array([10, 20]), np.array([20, 30]), probs)
    assert half == pytest.approx([0.4, 0.6])


def test_a_window_past_the_end_says_how_much_of_it_is_known() -> None:
    assert pool((25, 35), np.array([20]), np.array([30]), np.array([[1.0, 0.0]]))[1] == 0.5
    with pytest.raises(ValueError, match="no clip overlaps"):
        pool((40, 50), np.array([20]), np.array([30]), np.array([[1.0, 0.0]]))


@given(st.integers(0, 7), st.integers(0, 2**16))
def test_shifting_is_pooling_of_two_clips_that_touch(offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), (2, 3)).astype(np.float32)
    found = shifted(probs[0], probs[1], np.full(3, offset), 8)
    for n in range(3):
        expected, _ = pool((offset, offset + 8), np.array([0, 8]), np.array([8, 16]), probs[:, n])
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
