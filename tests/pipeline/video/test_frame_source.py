"""The in-process frame source: plan order, back-pressure, attempts, aliases, and an end without hanging."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.frames import Clip, FrameRequest, VideoEnd
from pipeline.video import attempts
from pipeline.video.decoder import DecodedClip
from pipeline.video.frame_source import LocalFrameSource
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpan, ClipSpec, clip_spans, count_clips
from schemas.errors import VideoError
from schemas.shard import Failure, Shard, ShardKey
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video
from tests.video_files import VideoFile

REQUEST = FrameRequest(ClipSpec(num_frames=2, seconds=1.0), ViewSpec(width=16, height=16), DecodeSpec())
CLIP_BYTES = 2 * 16 * 16 * 3
Get = Callable[[str], VideoFile]


class FakeDecoder:
    """Yields grey clips; a URI ``name?k=v&...`` says what goes wrong: ``fail`` times after ``good`` clips."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.open_now = 0
        self.decoded = 0

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec,
        decode: DecodeSpec,
        also: Sequence[ViewSpec] = (),
    ) -> Iterator[DecodedClip]:
        name, _, query = uri.partition("?")
        wish = dict(pair.split("=") for pair in query.split("&") if pair)
        self.calls.append((name, len(spans)))
        tries = sum(called == name for called, _ in self.calls)
        if "missing" in wish:
            raise VideoError("open", "not there", permanent=False, cause="FileNotFoundError")
        self.open_now += 1
        try:
            fails = tries <= int(wish.get("fail", 0))
            for number, span in enumerate(spans):
                if fails and number == int(wish.get("good", 0)):
                    if "bug" in wish:
                        raise ZeroDivisionError("a bug")
                    raise VideoError(
                        "decode", "x" * 900 + " last words", permanent="dead" in wish, cause="Away"
                    )
                if span.start_us >= int(wish.get("ends", 10**12)):
                    return
                self.decoded += 1
                frames = np.zeros((1, 2, view.height, view.width, 3), np.uint8)
                yield DecodedClip(span, frames, wish.get("damage", "") if number == 1 else "")
        finally:
            self.open_now -= 1


def shard(*uris: str, seconds: int = 5, number: int = 1) -> Shard:
    end_us = seconds * 1_000_000
    count = count_clips(end_us, REQUEST.clip)
    return Shard(ShardKey(1, number), tuple(Video(uri, uri, 0, end_us, count) for uri in uris))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def decoder() -> FakeDecoder:
    return FakeDecoder()


def events(decoder: FakeDecoder, *uris: str, max_attempts: int = 3) -> list[Clip | VideoEnd]:
    source = LocalFrameSource(decoder, max_attempts=max_attempts)
    got = list(source.stream(shard(*uris), REQUEST))
    source.close()
    assert decoder.open_now == 0
    return got


def end_of(got: list[Clip | VideoEnd]) -> Failure | None:
    (end,) = [event for event in got if isinstance(event, VideoEnd)]
    assert got[-1] is end
    return end.failure


def starts(got: list[Clip | VideoEnd]) -> list[int]:
    return [event.span.start_us for event in got if isinstance(event, Clip)]


def test_events_come_in_plan_order(decoder: FakeDecoder) -> None:
    got = events(decoder, "a", "b", "c")
    assert [event.video_id for event in got] == [v for v in "abc" for _ in range(6)]
    assert [isinstance(event, VideoEnd) for event in got] == [False] * 5 + [True] + ([False] * 5 + [True]) * 2
    assert all(event.failure is None for event in got if isinstance(event, VideoEnd))


def test_a_passing_fault_is_tried_again_without_repeating_clips(decoder: FakeDecoder) -> None:
    got = events(decoder, "a?fail=2&good=1")
    assert starts(got) == [span.start_us for span in clip_spans(0, 5_000_000, REQUEST.clip)]
    assert end_of(got) is None
    assert decoder.calls == [("a", 5), ("a", 4), ("a", 3)]


def test_a_passing_fault_that_stays_takes_all_rows(decoder: FakeDecoder) -> None:
    got = events(decoder, "a?fail=9&good=1")
    failure = end_of(got)
    assert failure is not None and not failure.permanent
    assert (failure.attempts, failure.missing_rows, failure.damaged_rows) == (3, 5, 0)
    assert len(failure.message) <= 500 and failure.message.endswith("last words")


def test_a_permanent_fault_keeps_what_came(decoder: FakeDecoder) -> None:
    failure = end_of(events(decoder, "a?fail=9&good=2&dead=1"))
    assert failure is not None and failure.permanent
    assert (failure.attempts, failure.missing_rows, failure.error, failure.decoder) == (1, 3, "Away", "fake")


def test_damage_and_truncation_are_failures_too(decoder: FakeDecoder) -> None:
    damaged = end_of(events(decoder, "a?damage=torn"))
    assert damaged is not None and damaged.permanent
    assert (damaged.error, damaged.missing_rows, damaged.damaged_rows, damaged.message) == (
        "Damaged",
        0,
        1,
        "torn",
    )
    truncated = end_of(events(decoder, "b?ends=3000000"))
    assert truncated is not None and truncated.permanent
    assert (truncated.error, truncated.missing_rows) == ("Truncated", 2)


def test_aliases_are_tried_where_a_file_is_missing(decoder: FakeDecoder) -> None:
    video = Video("v", "a?missing=1", 0, 5_000_000, 5, uris=("a?missing=1", "b"))
    source = LocalFrameSource(decoder)
    got = list(source.stream(Shard(ShardKey(1, 1), (video,)), REQUEST))
    assert len(starts(got)) == 5 and end_of(got) is None
    source.close()
    failure = end_of(events(FakeDecoder(), "c?missing=1"))
    assert failure is not None and (failure.permanent, failure.attempts, failure.missing_rows) == (
        False,
        1,
        5,
    )


def test_an_unreadable_video_is_not_opened(decoder: FakeDecoder) -> None:
    known = Failure("old", "u", "probe", "NoFrames", "none", True, 1, 0)
    video = Video("v", "u", 0, 5_000_000, 5, unreadable=json.dumps(known.to_json()))
    source = LocalFrameSource(decoder)
    (end,) = source.stream(Shard(ShardKey(1, 1), (video,)), REQUEST)
    source.close()
    assert isinstance(end, VideoEnd) and end.failure is not None
    assert (end.failure.video_id, end.failure.missing_rows, end.failure.stage) == ("v", 5, "probe")
    assert decoder.calls == []


def test_other_exceptions_are_a_passing_failure_of_the_video(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder, max_attempts=1)
    *clips, end = source.stream(shard("a?fail=9&good=2&bug=1"), REQUEST)
    assert len(clips) == 2 and isinstance(end, VideoEnd) and end.failure is not None
    assert (end.failure.error, end.failure.permanent) == ("ZeroDivisionError", False)
    assert len(list(source.stream(shard("b"), REQUEST))) == 6
    source.close()


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_decoding_ahead_is_bounded_in_bytes(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder, max_bytes=3 * CLIP_BYTES)
    stream = source.stream(shard("a", seconds=20), REQUEST)
    next(stream)
    assert wait_until(lambda: decoder.decoded == 5)
    time.sleep(0.05)
    assert decoder.decoded == 5  # one read, three waiting, one in hand
    assert len(list(stream)) == 20
    source.close()


def test_one_clip_larger_than_the_bound_still_comes(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder, max_bytes=1)
    assert len(list(source.stream(shard("a"), REQUEST))) == 6
    source.close()


def test_the_next_shard_is_decoded_meanwhile_and_once(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder)
    one, two = shard("a", number=1), shard("b", number=2)
    stream = source.stream(one, REQUEST)
    next(stream)
    source.prefetch(two, REQUEST)
    source.prefetch(two, REQUEST)
    assert wait_until(lambda: ("b", 5) in decoder.calls)
    assert len(list(stream)) == 5
    assert len(list(source.stream(two, REQUEST))) == 6
    assert decoder.calls == [("a", 5), ("b", 5)]
    source.close()


def test_a_prefetch_that_is_not_streamed_is_given_up(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder, max_bytes=CLIP_BYTES)
    source.prefetch(shard("a", number=1), REQUEST)
    assert wait_until(lambda: decoder.decoded == 2)
    assert [e.video_id for e in source.stream(shard("b", number=2), REQUEST)] == ["b"] * 6
    source.close()
    assert decoder.open_now == 0


@pytest.mark.parametrize("how", ["close", "abandon", "both"])
def test_a_reader_that_stops_half_way(decoder: FakeDecoder, how: str) -> None:
    source = LocalFrameSource(decoder, max_bytes=CLIP_BYTES)
    stream = source.stream(shard("a", "b", seconds=30), REQUEST)
    next(stream)
    if how != "close":
        stream.close()  # type: ignore[attr-defined]
        assert wait_until(lambda: decoder.open_now == 0)
    if how != "abandon":
        began = time.monotonic()
        source.close()
        source.close()
        assert time.monotonic() - began < 2
    if how == "abandon":
        assert len(list(source.stream(shard("c"), REQUEST))) == 6
        source.close()
    assert wait_until(lambda: not any(t.name == "locum-decode" for t in threading.enumerate()))
    with pytest.raises(ValueError, match="closed"):
        source.prefetch(shard("d"), REQUEST)


def test_closing_wakes_a_reader(decoder: FakeDecoder) -> None:
    source = LocalFrameSource(decoder)
    stream = source.stream(shard("a"), REQUEST)
    next(stream)
    threading.Timer(0.05, source.close).start()
    with pytest.raises(ValueError, match="closed"):
        for _ in stream:
            time.sleep(0.1)


def test_a_pause_between_attempts_does_not_delay_the_end(
    decoder: FakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 60.0)
    source = LocalFrameSource(decoder)
    source.prefetch(shard("a?fail=9"), REQUEST)
    assert wait_until(lambda: len(decoder.calls) == 1)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 2


def test_real_videos(video: Get, tmp_path: Path) -> None:
    """Whole, cut short, and no video at all, in one shard."""
    file = video("h264_b.mkv")
    data = file.path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mkv").write_text("no video")
    count = count_clips(file.end_us, REQUEST.clip)
    paths = [file.path, tmp_path / "cut.mkv", tmp_path / "text.mkv"]
    videos = tuple(Video(path.name, str(path), 0, file.end_us, count) for path in paths)
    source = LocalFrameSource(PyAVDecoder())
    got = list(source.stream(Shard(ShardKey(1, 1), videos), REQUEST))
    source.close()
    whole, cut, text = (e.failure for e in got if isinstance(e, VideoEnd))
    assert whole is None
    assert cut is not None and cut.error == "Truncated" and 0 < cut.missing_rows < count
    assert text is not None and text.stage == "open" and text.missing_rows == count
    for name, failure in (("h264_b.mkv", whole), ("cut.mkv", cut), ("text.mkv", text)):
        clips = [e for e in got if isinstance(e, Clip) and e.video_id == name]
        assert len(clips) == count - (failure.missing_rows if failure else 0)
        assert all(clip.decode_ms >= 0 for clip in clips)
