"""A video that is taken up where another decoder left it: no clip comes twice, and no damage is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from pipeline.frames import Clip, Delivered, FrameRequest, VideoEnd
from pipeline.video import attempts
from pipeline.video.attempts import VideoAttempts
from pipeline.video.decoder import DecodedClip, Decoder
from pipeline.video.events import video_events
from schemas.clip import ClipSpan, ClipSpec, clip_spans, count_clips
from schemas.errors import VideoError
from schemas.shard import Failure
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video
from tests.video_files import VideoFile

REQUEST = FrameRequest(ClipSpec(num_frames=1, seconds=1.0), ViewSpec(width=16, height=16), DecodeSpec())
PLANNED = 6
VIDEO = Video("v", "v.mp4", 0, PLANNED * 1_000_000, PLANNED)


class FakeDecoder:
    """Decodes clips up to ``ends_us``; the first ``fails`` times it raises after one clip."""

    name = "fake"

    def __init__(
        self, fails: int = 0, permanent: bool = False, ends_us: int = 10**12, damage: str = ""
    ) -> None:
        self.fails, self.permanent, self.ends_us, self.damage = fails, permanent, ends_us, damage
        self.asked: list[list[int]] = []

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec,
        decode: DecodeSpec,
        also: Sequence[ViewSpec] = (),
    ) -> Iterator[DecodedClip]:
        self.asked.append([span.start_us // 1_000_000 for span in spans])
        for number, span in enumerate(spans):
            if number == 1 and len(self.asked) <= self.fails:
                raise VideoError("decode", "no answer", permanent=self.permanent, cause="Away")
            if span.start_us < self.ends_us:
                yield DecodedClip(span, np.zeros((1, 1, 16, 16, 3), np.uint8), self.damage)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 0.001)


def delivered(clips: int, **more: object) -> Delivered:
    return Delivered(num_clips=clips, last_start_us=(clips - 1) * 1_000_000, **more)  # type: ignore[arg-type]


def run(
    decoder: Decoder, before: Delivered, video: Video = VIDEO, max_attempts: int = 3
) -> tuple[list[int], Failure | None]:
    """Numbers of the clips, and the failure."""
    *clips, end = VideoAttempts(decoder, video, REQUEST, max_attempts, threading.Event(), before).events()
    assert isinstance(end, VideoEnd)
    return [clip.span.start_us // 1_000_000 for clip in clips if isinstance(clip, Clip)], end.failure


@pytest.mark.parametrize("clips", range(PLANNED + 1))
def test_clips_that_were_delivered_are_not_asked_for_again(clips: int) -> None:
    decoder = FakeDecoder()
    left = list(range(clips, PLANNED))
    before = delivered(clips, attempts=1) if clips else Delivered(attempts=1)
    assert run(decoder, before) == (left, None)
    assert decoder.asked == [left]


def test_the_first_clip_at_time_0_is_not_taken_for_none() -> None:
    assert run(FakeDecoder(), Delivered())[0] == list(range(PLANNED))
    assert run(FakeDecoder(), Delivered(num_clips=1, last_start_us=0))[0] == list(range(1, PLANNED))


def test_clips_in_the_middle_that_were_missing_are_not_looked_for_again() -> None:
    """What counts is where the last one began: the decoder went past the others."""
    got, failure = run(FakeDecoder(), Delivered(attempts=1, num_clips=2, last_start_us=3_000_000))
    assert got == [4, 5]
    assert failure is not None and failure.missing_rows == 2


def test_truncation_counts_what_came_before() -> None:
    got, failure = run(FakeDecoder(ends_us=4_000_000), delivered(2, attempts=1))
    assert got == [2, 3] and failure is not None
    assert (failure.error, failure.permanent, failure.missing_rows, failure.attempts) == (
        "Truncated",
        True,
        2,
        2,
    )


def test_damage_that_came_before_is_not_forgotten() -> None:
    before = delivered(3, attempts=1, num_damaged=2, damage="torn")
    _, failure = run(FakeDecoder(), before)
    assert failure is not None and failure.permanent
    assert (failure.error, failure.message, failure.damaged_rows, failure.missing_rows) == (
        "Damaged",
        "torn",
        2,
        0,
    )
    _, failure = run(FakeDecoder(damage="grey"), before)
    assert failure is not None and (failure.message, failure.damaged_rows) == ("torn", 5)


def test_decoders_that_it_cost_are_attempts() -> None:
    decoder = FakeDecoder(fails=9)
    got, failure = run(decoder, delivered(1, attempts=1), max_attempts=3)
    assert got == [1, 2] and failure is not None and not failure.permanent
    assert (failure.attempts, failure.missing_rows, len(decoder.asked)) == (3, PLANNED, 2)


def test_at_least_one_attempt_is_made() -> None:
    decoder = FakeDecoder(fails=9)
    _, failure = run(decoder, delivered(1, attempts=7), max_attempts=3)
    assert failure is not None and failure.attempts == 8 and len(decoder.asked) == 1


def test_a_permanent_fault_keeps_what_came_before_and_now() -> None:
    got, failure = run(FakeDecoder(fails=9, permanent=True), delivered(2, attempts=1, num_damaged=1))
    assert got == [2] and failure is not None and failure.permanent
    assert (failure.missing_rows, failure.damaged_rows, failure.attempts) == (3, 1, 2)


def test_a_real_decoder_goes_on_from_any_clip(video: Callable[[str], VideoFile]) -> None:
    file = video("h264_b.mkv")
    count = count_clips(file.end_us, REQUEST.clip)
    real = Video("v", str(file.path), 0, file.end_us, count)
    starts = [span.start_us for span in clip_spans(0, file.end_us, REQUEST.clip)]

    def events(before: Delivered) -> list[Clip]:
        *clips, end = video_events(real, REQUEST, 1, threading.Event(), before=before)
        assert isinstance(end, VideoEnd) and end.failure is None
        return [clip for clip in clips if isinstance(clip, Clip)]

    whole = events(Delivered())
    assert [clip.span.start_us for clip in whole] == starts and count > 2
    for n in range(1, count + 1):
        rest = events(Delivered(1, n, 0, "", starts[n - 1]))
        assert [clip.span for clip in rest] == [clip.span for clip in whole[n:]]
        for again, once in zip(rest, whole[n:], strict=True):
            assert np.array_equal(again.frames_VTHWC, once.frames_VTHWC)
