"""Segments against a model that asks each instant, over clips as they are really cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.segments import ClipWord, Segment, segments_of
from schemas.clip import ClipSpec, clip_spans


@st.composite
def words(draw: st.DrawFn) -> list[ClipWord]:
    """The clips of one video, by any stride, tail and limit, some of them not asked about; times are small."""
    spec = ClipSpec(
        num_frames=1,
        seconds=0.001,
        stride_seconds=0.001,
        tail=draw(st.sampled_from(["cover", "drop"])),
        max_clips=draw(st.none() | st.integers(1, 6)),
    )
    length, stride = draw(st.integers(2, 12)), draw(st.integers(1, 16))
    spec = spec.model_copy(update={"seconds": length / 1e6, "stride_seconds": stride / 1e6})
    start = draw(st.integers(0, 5))
    spans = clip_spans(start, start + draw(st.integers(1, 60)), spec)
    return [
        ClipWord(
            s.start_us,
            s.end_us,
            draw(st.none() | st.integers(0, 2)),
            draw(st.floats(0, 1)),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for s in spans
    ]


def said_at(time_us: int, segments: tuple[Segment, ...]) -> list[int]:
    return [s.top1 for s in segments if s.start_us <= time_us < s.end_us]


@given(words())
def test_each_instant_is_called_as_the_nearest_answered_clip_that_covers_it(clips: list[ClipWord]) -> None:
    segments = segments_of(clips)
    answered = [c for c in clips if c.top1 is not None]
    for time_us in range(max(c.end_us for c in clips) + 2):
        covering = [c for c in answered if c.start_us <= time_us < c.end_us]
        far = [abs(c.start_us + c.end_us - 2 * time_us - 1) for c in covering]
        # The middle of an odd number of microseconds is rounded, so a clip may be nearer by one of them.
        nearest = {c.top1 for c, d in zip(covering, far, strict=True) if d <= min(far) + 2}
        said = said_at(time_us, segments)
        assert len(said) == bool(covering) and set(said) <= nearest


@given(words())
def test_segments_are_sorted_apart_and_no_two_could_be_one(clips: list[ClipWord]) -> None:
    segments = segments_of(clips)
    for s in segments:
        assert s.start_us < s.end_us
    for before, after in pairwise(segments):
        assert before.end_us <= after.start_us
        assert before.end_us < after.start_us or before.top1 != after.top1


@given(words())
def test_numbers_of_a_segment_are_those_of_its_clips(clips: list[ClipWord]) -> None:
    segments = segments_of(clips)
    answered = [c for c in clips if c.top1 is not None]
    assert sum(s.clips for s in segments) <= len(answered)
    for s in segments:
        inside = [c for c in answered if c.top1 == s.top1 and c.start_us < s.end_us and s.start_us < c.end_us]
        assert min(c.confidence for c in inside) <= s.confidence <= max(c.confidence for c in inside)
        assert 1 <= s.clips <= len(inside)
        assert s.teacher_clips <= sum(c.by_teacher for c in inside)
        assert s.damaged_clips <= sum(c.damaged for c in inside)


def test_confidence_is_weighted_by_time() -> None:
    """A last clip that covers a remainder of a quarter owns less than a whole one: half of what it shares."""
    clips = [ClipWord(0, 8, 1, 0.9), ClipWord(8, 16, 1, 0.9), ClipWord(10, 18, 1, 0.5)]
    (s,) = segments_of(clips)
    assert (s.start_us, s.end_us, s.clips) == (0, 18, 3)
    assert s.confidence == pytest.approx((13 * 0.9 + 5 * 0.5) / 18)


def test_gaps_and_clips_that_nobody_was_asked_about() -> None:
    clips = [
        ClipWord(0, 10, 1, 0.9, by_teacher=True),
        ClipWord(10, 20, None, 0.0, damaged=True),
        ClipWord(20, 30, 1, 0.8, damaged=True),
        ClipWord(40, 50, 1, 0.7),
    ]
    assert segments_of(clips) == (
        Segment(0, 10, 1, 0.9, 1, 1, 0),
        Segment(20, 30, 1, 0.8, 1, 0, 1),
        Segment(40, 50, 1, 0.7, 1, 0, 0),
    )
    assert segments_of([]) == segments_of([ClipWord(0, 10, None, 0.0)]) == ()


def test_an_unasked_clip_leaves_its_time_to_answered_ones_that_cover_it() -> None:
    clips = [ClipWord(0, 10, 1, 0.9), ClipWord(5, 15, None, 0.0), ClipWord(10, 20, 2, 0.9)]
    assert [(s.start_us, s.end_us, s.top1) for s in segments_of(clips)] == [(0, 10, 1), (10, 20, 2)]


@pytest.mark.parametrize(
    "clips",
    [
        [ClipWord(5, 10, 1, 0.5), ClipWord(0, 10, 1, 0.5)],
        [ClipWord(0, 10, 1, 0.5), ClipWord(0, 10, 1, 0.5)],
        [ClipWord(0, 10, 1, 0.5), ClipWord(2, 8, 1, 0.5)],
        [ClipWord(3, 3, 1, 0.5)],
    ],
)
def test_clips_out_of_order_are_refused(clips: list[ClipWord]) -> None:
    with pytest.raises(ValueError, match=r"clips must come in order|an empty clip"):
        segments_of(clips)
