"""Clip arithmetic: where clips lie, how many there are, and which instants are looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.clip import US, ClipSpec, clip_spans, count_clips, count_clips_N, sample_times

SECONDS = st.floats(0.05, 20)
SPECS = st.builds(
    ClipSpec,
    num_frames=st.integers(1, 40),
    seconds=SECONDS,
    stride_seconds=st.one_of(st.none(), SECONDS),
    tail=st.sampled_from(["cover", "drop"]),
    max_clips=st.one_of(st.none(), st.integers(1, 9)),
)
STRETCHES = st.tuples(st.integers(0, 10**9), st.integers(1, 30 * US))


@settings(deadline=None)
@given(SPECS, STRETCHES)
def test_clips_lie_in_the_stretch_sorted_and_each_once(spec: ClipSpec, stretch: tuple[int, int]) -> None:
    start, end = stretch[0], stretch[0] + stretch[1]
    spans = clip_spans(start, end, spec)
    assert 1 <= len(spans) == count_clips(end - start, spec)
    starts = [s.start_us for s in spans]
    assert starts == sorted(set(starts))
    assert starts[0] >= start and spans[-1].end_us <= end
    if end - start >= spec.length_us:
        assert {s.end_us - s.start_us for s in spans} == {spec.length_us}
    else:
        assert [(s.start_us, s.end_us) for s in spans] == [(start, end)]


@settings(deadline=None)
@given(SPECS, STRETCHES)
def test_sample_times_lie_in_their_clip_and_never_go_back(spec: ClipSpec, stretch: tuple[int, int]) -> None:
    start, end = stretch[0], stretch[0] + stretch[1]
    for span in clip_spans(start, end, spec):
        assert len(span.times_us) == spec.num_frames
        assert list(span.times_us) == sorted(span.times_us)
        assert span.start_us <= span.times_us[0] and span.times_us[-1] < span.end_us


@settings(deadline=None)
@given(SPECS, st.lists(st.integers(-5, 30 * US), max_size=30))
def test_counting_an_array_is_counting_each(spec: ClipSpec, durations: list[int]) -> None:
    counts = count_clips_N(np.array(durations, np.int64), spec)
    assert counts.dtype == np.int32
    assert counts.tolist() == [count_clips(d, spec) for d in durations]


@settings(deadline=None)
@given(SPECS, STRETCHES, st.integers(1, 10**9))
def test_a_stretch_moved_in_time_has_the_same_clips_moved(
    spec: ClipSpec, stretch: tuple[int, int], shift: int
) -> None:
    start, end = stretch[0], stretch[0] + stretch[1]
    moved = clip_spans(start + shift, end + shift, spec)
    assert [(s.start_us - shift, tuple(t - shift for t in s.times_us)) for s in moved] == [
        (s.start_us, s.times_us) for s in clip_spans(start, end, spec)
    ]


@settings(deadline=None)
@given(SPECS, st.integers(1, 30 * US))
def test_dropping_the_tail_only_drops_the_last_clip(spec: ClipSpec, duration: int) -> None:
    every = spec.model_copy(update={"max_clips": None})
    cover = clip_spans(0, duration, every.model_copy(update={"tail": "cover"}))
    drop = clip_spans(0, duration, every.model_copy(update={"tail": "drop"}))
    assert cover[: len(drop)] == drop
    assert len(cover) - len(drop) in (0, 1)
    if len(cover) > len(drop):
        assert cover[-1].end_us == duration
    if duration >= spec.length_us and spec.stride_us <= spec.length_us:
        assert duration - cover[-1].end_us < max(1, spec.length_us // 10 + 1)


@settings(deadline=None)
@given(SPECS, st.integers(1, 30 * US), st.integers(1, 50))
def test_max_clips_takes_an_evenly_spread_part_of_the_clips(
    spec: ClipSpec, duration: int, limit: int
) -> None:
    every = clip_spans(0, duration, spec.model_copy(update={"max_clips": None}))
    some = clip_spans(0, duration, spec.model_copy(update={"max_clips": limit}))
    assert len(some) == min(limit, len(every))
    assert set(some) <= set(every)
    gaps = np.diff([every.index(s) for s in some])
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_examples_by_hand() -> None:
    spec = ClipSpec(num_frames=4, seconds=2)
    assert [(s.start_us, s.end_us) for s in clip_spans(0, 5 * US, spec)] == [
        (0, 2 * US),
        (2 * US, 4 * US),
        (3 * US, 5 * US),
    ]
    assert count_clips(4_199_999, spec) == 2
    assert count_clips(4_200_000, spec) == 3
    assert sample_times(0, 5 * US, spec.length_us, spec.num_frames) == (
        250_000,
        750_000,
        1_250_000,
        1_750_000,
    )
    assert clip_spans(0, 1_000_000, spec)[0].times_us == (250_000, 750_000, 999_999, 999_999)
    assert clip_spans(7, 8, spec)[0].times_us == (7, 7, 7, 7)
    assert clip_spans(5, 5, spec) == clip_spans(5, 4, spec) == []
    assert count_clips(0, spec) == count_clips(-1, spec) == 0


def test_many_clips_do_not_overflow_their_count() -> None:
    finest = ClipSpec(seconds=0.001, stride_seconds=0.001, num_frames=1)
    month_us = 31 * 24 * 3600 * US
    assert count_clips_N(np.array([month_us // 2]), finest).tolist() == [month_us // 2 // 1000]


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": 0},
        {"num_frames": 1025},
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": 1e-6},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"stride_seconds": 0},
        {"stride_seconds": 1e-6},
        {"tail": "wrap"},
        {"max_clips": 0},
        {"fps": 25},
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_value(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ClipSpec.model_validate(wrong)
