"""Idle clips, by the packets of real encoded files, and how they come to whoever wants frames."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.frames import Clip, Delivered, Event, FrameRequest, VideoEnd
from pipeline.video import activity
from pipeline.video.activity import idle_starts
from pipeline.video.events import video_events
from schemas.clip import US, ClipSpan, clip_spans
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video
from tests.films import BUSY, CLIP, IDLE, PLANNED, SPANS, SPEC, film


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> str:
    return film(tmp_path_factory.mktemp("film") / "film.mp4")


def idle(path: str | Path, spans: Sequence[ClipSpan] = SPANS, share: float = 0.3) -> set[int]:
    return set(idle_starts(str(path), spans, share, threading.Event()))


def test_what_stands_still_is_idle(mp4: str) -> None:
    assert idle(mp4) == IDLE
    assert idle(mp4, share=1e-6) == set()
    assert idle(mp4, SPANS[3:5]) == set()  # beside each other they are both busy
    assert idle(mp4, SPANS[:1], 0.9) == set()


@pytest.mark.parametrize("name", ["film.mkv", "film.ts", "film.avi", "fragmented.mp4"])
def test_in_containers_with_and_without_an_index(tmp_path: Path, name: str, mp4: str) -> None:
    path = tmp_path / name
    if name != "fragmented.mp4":
        film(path)
    else:
        flags = {"movflags": "frag_keyframe+empty_moov"}
        with av.open(mp4) as reader, av.open(str(path), "w", options=flags) as writer:
            out = writer.add_stream_from_template(reader.streams.video[0])
            for packet in reader.demux(reader.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = out
                    writer.mux(packet)
    assert idle(path) == IDLE


def test_where_packets_cannot_tell_nothing_is_idle(tmp_path: Path) -> None:
    keyframes_only = film(tmp_path / "film.mjpeg.avi", "mjpeg", "yuvj420p")
    assert idle(keyframes_only) == set()
    still = film(tmp_path / "still.mp4", busy=())
    assert len(idle(still)) < PLANNED / 2


def test_what_a_file_does_not_hold_is_not_idle(tmp_path: Path, mp4: str) -> None:
    longer = clip_spans(0, (PLANNED + 5) * CLIP * US, SPEC, [])
    assert idle(mp4, longer) == IDLE
    half = tmp_path / "half.ts"
    whole = Path(film(tmp_path / "film.ts")).read_bytes()
    half.write_bytes(whole[: len(whole) * 6 // 10])
    found = idle(half)
    assert found < IDLE and SPANS[-1].start_us not in found
    with pytest.raises(VideoError):
        idle(tmp_path / "none.mp4")


def test_an_edit_list_moves_the_clock(tmp_path: Path) -> None:
    """As `ffmpeg -ss -c copy` cuts: packets before the first picture that is shown are there, and do not count."""
    whole, cut_seconds = film(tmp_path / "film.mp4", gop=250), 5
    cut = tmp_path / "cut.mp4"
    options = {"avoid_negative_ts": "disabled"}
    with av.open(whole) as reader, av.open(str(cut), "w", options=options) as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        ticks = round(cut_seconds / stream.time_base)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, out
                writer.mux(packet)
    spans = clip_spans(0, (PLANNED * CLIP - cut_seconds) * US, SPEC, [])
    seen = {s.start_us // US for s in spans} - {start // US for start in idle(cut, spans)}
    moving = [(n * CLIP - cut_seconds, (n + 1) * CLIP - cut_seconds) for n in BUSY]
    touched = {
        s.start_us // US for s in spans for a, b in moving if a < s.end_us / US and s.start_us / US < b
    }
    assert seen == touched


def test_an_index_that_says_more_than_is_there(tmp_path: Path) -> None:
    whole = Path(film(tmp_path / "film.mp4", faststart=True))
    half = tmp_path / "half.mp4"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    *clips, end = events(str(half), 0.3)
    *every, other = events(str(half), 0.0)
    assert isinstance(end, VideoEnd) and isinstance(other, VideoEnd)
    assert end.failure is not None and other.failure is not None
    assert end.failure.missing_rows == other.failure.missing_rows > 2
    assert [c.span for c in clips] == [c.span for c in every] and any(c.idle for c in clips)


def test_where_the_clock_starts_anew_nothing_is_idle(tmp_path: Path) -> None:
    parts = []
    for number, start in enumerate((40, 0)):
        path = tmp_path / f"{number}.ts"
        with av.open(film(tmp_path / "film.mp4")) as reader, av.open(str(path), "w") as writer:
            stream = reader.streams.video[0]
            out = writer.add_stream_from_template(stream)
            for packet in reader.demux(stream):
                if packet.dts is not None:
                    shift = round(start / stream.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, out
                    writer.mux(packet)
        parts.append(path.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    assert idle(tmp_path / "1.ts") and not idle(joined, clip_spans(0, 2 * VIDEO_END, SPEC, []))


def test_a_few_busy_clips_of_a_long_film_are_enough(tmp_path: Path) -> None:
    once = film(tmp_path / "film.mp4", busy=(7,))
    assert idle(once) == {s.start_us for n, s in enumerate(SPANS) if n != 7}


def test_a_fault_of_the_disk_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = film(tmp_path / "film.ts")

    def broken(*_: object) -> Iterator[object]:
        raise av.error.OSError(5, "Input/output error", path)
        yield

    monkeypatch.setattr(activity, "_packets_of", broken)
    with pytest.raises(VideoError) as found:
        idle(path)
    assert not found.value.permanent


def test_a_scan_that_is_stopped_says_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert not idle_starts(film(tmp_path / "film.ts"), SPANS, 0.3, stop)


# ---------------------------------------------------------------- as events


VIDEO_END = PLANNED * CLIP * US


def events(uri: str, share: float, before: Delivered = Delivered(), **changes: object) -> list[Event]:
    video = Video("v", uri, 0, VIDEO_END, PLANNED, **changes)  # type: ignore[arg-type]
    request = FrameRequest(SPEC, ViewSpec(width=32, height=24), DecodeSpec(), idle=share)
    return list(video_events(video, request, 1, threading.Event(), before=before))


def test_idle_clips_come_in_their_place_and_without_frames(mp4: str) -> None:
    *clips, end = events(mp4, 0.3)
    assert isinstance(end, VideoEnd) and end.failure is None
    assert all(isinstance(c, Clip) for c in clips)
    assert [c.span.start_us for c in clips] == [s.start_us for s in SPANS]
    assert {c.span.start_us for c in clips if c.idle} == IDLE
    everything = {c.span.start_us: c for c in events(mp4, 0.0)[:-1]}
    for clip in clips:
        assert clip.frames_VTHWC.size == 0 if clip.idle else clip.frames_VTHWC.size
        if not clip.idle:
            assert np.array_equal(clip.frames_VTHWC, everything[clip.span.start_us].frames_VTHWC)
    assert not any(c.idle for c in everything.values())


def test_of_a_video_that_is_wanted_in_full_idle_clips_have_frames(mp4: str) -> None:
    *clips, _ = events(mp4, 0.3, in_full=True)
    assert {c.span.start_us for c in clips if c.idle} == IDLE
    assert all(c.frames_VTHWC.size for c in clips)


def test_what_is_idle_hangs_on_the_whole_video(mp4: str) -> None:
    only = tuple(s.start_us for s in SPANS[:3])
    assert [c.idle for c in events(mp4, 0.3, only_us=only)[:-1]] == [True] * 3
    before = Delivered(attempts=1, num_clips=5, last_start_us=SPANS[4].start_us)
    *clips, end = events(mp4, 0.3, before)
    assert [c.span.start_us for c in clips] == [s.start_us for s in SPANS[5:]]
    assert {c.span.start_us for c in clips if c.idle} == IDLE & {s.start_us for s in SPANS[5:]}
    assert isinstance(end, VideoEnd) and end.failure is None


def test_a_file_that_was_cut_short_is_missed_not_idle(tmp_path: Path) -> None:
    half = tmp_path / "half.ts"
    whole = Path(film(tmp_path / "film.ts")).read_bytes()
    half.write_bytes(whole[: len(whole) * 6 // 10])
    *clips, end = events(str(half), 0.3)
    assert isinstance(end, VideoEnd) and end.failure is not None
    assert end.failure.missing_rows == PLANNED - len(clips) > 2
    video = replace(Video("v", str(half), 0, VIDEO_END, PLANNED), only_us=(SPANS[-1].start_us,))
    request = FrameRequest(SPEC, ViewSpec(width=32, height=24), DecodeSpec(), idle=0.3)
    (last,) = video_events(video, request, 1, threading.Event())
    assert isinstance(last, VideoEnd) and last.failure is not None and last.failure.missing_rows == 1
