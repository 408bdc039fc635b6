"""The sampler with made-up frames: who gets which frame, once converted, clips in order."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.decoder import DecodedClip
from pipeline.video.sampling import Sampler, TimedFrame
from schemas.clip import ClipSpan


def picture(number: int) -> np.ndarray:
    return np.full((1, 1, 1, 3), number, np.uint8)


def run(
    spans: list[ClipSpan], times: list[int], length: int = 10, **finish: int
) -> tuple[list[DecodedClip], list[int]]:
    converted: list[int] = []

    def convert(number: int) -> np.ndarray:
        converted.append(number)
        return picture(number)

    sampler: Sampler[int] = Sampler(spans, convert)
    clips = [c for n, t in enumerate(times) for c in sampler.push(TimedFrame(t, length, n))]
    return clips + list(sampler.finish(**finish)), converted


def values(clip: DecodedClip) -> list[int]:
    return [int(v) for v in clip.frames_VTHWC[0, :, 0, 0, 0]]


def span(*times: int) -> ClipSpan:
    return ClipSpan(times[0], times[-1] + 1, times)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=6), min_size=1, max_size=8),
)
def test_every_slot_gets_the_last_frame_at_or_before_its_time(
    steps: list[int], samples: list[list[int]]
) -> None:
    times = [0, *np.cumsum(steps).tolist()]
    spans = sorted((span(*sorted(s)) for s in samples), key=lambda s: s.start_us)
    clips, converted = run(spans, times, tolerance_us=10_000)
    assert [c.span for c in clips] == spans
    for clip in clips:
        assert values(clip) == [bisect.bisect_right(times, t) - 1 for t in clip.span.times_us]
        assert clip.damage == ""
    assert len(converted) == len(set(converted))
    assert set(converted) == {v for clip in clips for v in values(clip)}


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.tuples(*[st.lists(st.integers(0, 700), min_size=1, max_size=5)] * 3), min_size=1, max_size=6),
    st.sets(st.integers(0, 29), max_size=3),
)
def test_further_streams_get_their_frames_and_change_nothing_of_the_first(
    steps: list[int], samples: list[tuple[list[int], list[int], list[int]]], damaged: set[int]
) -> None:
    times = [0, *np.cumsum(steps).tolist()]
    first = sorted((span(*sorted(s[0])) for s in samples), key=lambda s: s.start_us)
    both = [
        replace(f, also_us=(tuple(sorted(s[1])), tuple(sorted(s[2]))))
        for f, s in zip(first, samples, strict=True)
    ]

    def decoded(spans: list[ClipSpan], *also: Callable[[int], np.ndarray]) -> list[DecodedClip]:
        sampler: Sampler[int] = Sampler(spans, picture, *also)
        frames = (TimedFrame(t, 10, n, "torn" if n in damaged else "") for n, t in enumerate(times))
        return [c for f in frames for c in sampler.push(f)] + list(sampler.finish())

    def numbers(frames_VTHWC: np.ndarray) -> list[int]:
        return [int(v) for v in frames_VTHWC[0, :, 0, 0, 0]]

    alone = decoded(first)
    together = decoded(both, lambda n: picture(n).repeat(2, axis=1), picture)
    assert [(values(c), c.damage) for c in together] == [(values(c), c.damage) for c in alone]
    for clip in together:
        for stream, wanted in zip(clip.also, clip.span.also_us, strict=True):
            shown = [bisect.bisect_right(times, t) - 1 for t in wanted]
            assert numbers(stream.frames_VTHWC) == shown
            assert ("torn" in stream.damage) == bool(damaged & set(shown))
        assert [s.frames_VTHWC.shape[2] for s in clip.also] == [2, 1]


def test_spans_and_streams_have_to_match() -> None:
    with pytest.raises(ValueError, match="other streams"):
        Sampler([span(0)], picture, picture)


def test_a_clip_comes_out_with_the_frame_that_completes_it() -> None:
    sampler: Sampler[int] = Sampler([span(0, 15), span(10, 25)], picture)
    assert list(sampler.push(TimedFrame(0, 10, 0))) == []
    assert list(sampler.push(TimedFrame(10, 10, 1))) == []
    (first,) = sampler.push(TimedFrame(20, 10, 2))
    assert values(first) == [0, 1] and sampler.next_time_us == 25
    (second,) = sampler.push(TimedFrame(30, 10, 3))
    assert values(second) == [1, 2] and sampler.next_time_us is None


def test_a_long_hold_is_not_damage_but_a_loss_within_it_is() -> None:
    for lost, damage in (("", ""), ("gone", "gone")):
        sampler: Sampler[int] = Sampler([span(5), span(50)], picture)
        list(sampler.push(TimedFrame(0, 10, 0)))
        before, within = sampler.push(TimedFrame(100, 10, 1, lost_before=lost))
        assert (before.damage, within.damage) == ("", damage)


def test_damage_of_a_frame_marks_the_clips_that_hold_it() -> None:
    sampler: Sampler[int] = Sampler([span(0, 15), span(25)], picture)
    frames = [
        TimedFrame(0, 10, 0),
        TimedFrame(10, 10, 1, "bad"),
        TimedFrame(20, 10, 2),
        TimedFrame(30, 10, 3),
    ]
    clips = [clip for frame in frames for clip in sampler.push(frame)]
    assert [clip.damage for clip in clips] == ["bad", ""]


def test_the_end() -> None:
    clips, _ = run([span(10, 109), span(20, 111), span(111)], [0, 10], tolerance_us=90)
    assert [values(clip) for clip in clips] == [[1, 1], [1, 1]]
    assert [clip.damage for clip in clips] == ["", "file ends at 0.000 s"]


def test_after_a_jump_the_frame_before_it_is_not_used() -> None:
    sampler: Sampler[int] = Sampler([span(50)], picture)
    list(sampler.push(TimedFrame(0, 10, 0)))
    sampler.jump()
    assert list(sampler.push(TimedFrame(40, 10, 4))) == []
    (clip,) = sampler.push(TimedFrame(60, 10, 6))
    assert values(clip) == [4]


def test_without_frames_nothing_comes() -> None:
    assert run([span(0)], []) == ([], [])
