"""Frame exactness: the frame at t is the last one shown at or before t, in every container and codec, whether
decoded through or sought, from a path or a file object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.video import frame_reader, pyav
from pipeline.video.frame_reader import FrameReader
from pipeline.video.probe import probe
from pipeline.video.pyav import PyAVDecoder
from pipeline.video.source import open_media
from schemas.clip import ClipSpan, ClipSpec, clip_spans
from schemas.targets import DecodeSpec, ViewSpec
from tests.video_files import QUIET, RECIPES, VideoFile, constant, encode, read_number, trim, variable

VIEW = ViewSpec(width=32, height=32)
Get = Callable[[str], VideoFile]


def instants(times: list[int]) -> list[ClipSpan]:
    """One clip of one sample for each time."""
    return [ClipSpan(time, time + 1, (time,)) for time in times]


def numbers(decoder: PyAVDecoder, uri: str, spans: list[ClipSpan]) -> dict[ClipSpan, list[int]]:
    clips = list(decoder.decode(uri, spans, VIEW, DecodeSpec()))
    assert [clip.damage for clip in clips] == [""] * len(spans)
    return {clip.span: [read_number(picture) for picture in clip.frames_VTHWC[0]] for clip in clips}


def expected(file: VideoFile, spans: list[ClipSpan]) -> dict[ClipSpan, list[int]]:
    return {span: [file.number_at(time) for time in span.times_us] for span in spans}


def as_uri(file: VideoFile, where: str) -> str:
    if where == "path":
        return str(file.path)
    uri = f"memory://videos/{file.path.name}"
    with fsspec.open(uri, "wb") as out:
        out.write(file.path.read_bytes())
    return uri


@pytest.mark.parametrize("where", ["path", "memory"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_frame_at_its_first_and_last_instant(video: Get, name: str, where: str) -> None:
    file = video(name)
    starts = [time for time, _ in file.shown]
    spans = instants(sorted({*starts, *(time - 1 for time in starts[1:]), file.end_us - 1}))
    assert numbers(PyAVDecoder(), as_uri(file, where), spans) == expected(file, spans)


@pytest.mark.parametrize("where", ["path", "memory"])
@pytest.mark.parametrize("name", RECIPES)
def test_few_clips_of_a_file(video: Get, name: str, where: str) -> None:
    file = video(name)
    for count in (1, 2, 4):
        spans = instants([file.end_us * (2 * i + 1) // (2 * count) for i in range(count)])
        assert numbers(PyAVDecoder(), as_uri(file, where), spans) == expected(file, spans)


@pytest.mark.parametrize("name", ["h264_b.mp4", "vfr.mp4", "open_gop.ts"])
def test_a_further_stream_is_what_it_would_be_alone(video: Get, name: str) -> None:
    uri, end_us = str(video(name).path), video(name).end_us
    spec, more = ClipSpec(num_frames=8, seconds=1.0), ClipSpec(num_frames=3, seconds=1.0)
    small = ViewSpec(width=16, height=24)
    both = list(PyAVDecoder().decode(uri, clip_spans(0, end_us, spec, [3]), VIEW, DecodeSpec(), [small]))
    one = list(PyAVDecoder().decode(uri, clip_spans(0, end_us, spec), VIEW, DecodeSpec()))
    other = list(PyAVDecoder().decode(uri, clip_spans(0, end_us, more), small, DecodeSpec()))
    assert len(both) == len(one) == len(other) > 1
    for clip, first, second in zip(both, one, other, strict=True):
        np.testing.assert_array_equal(clip.frames_VTHWC, first.frames_VTHWC)
        np.testing.assert_array_equal(clip.also[0].frames_VTHWC, second.frames_VTHWC)


@pytest.mark.parametrize("name", ["h264_b.mp4", "open_gop.mkv", "vfr.mp4", "mpeg4_b.avi"])
def test_overlapping_clips(video: Get, name: str) -> None:
    file = video(name)
    spans = clip_spans(0, file.end_us, ClipSpec(num_frames=7, seconds=1.0, stride_seconds=0.3))
    assert len(spans) > 8
    assert numbers(PyAVDecoder(), str(file.path), spans) == expected(file, spans)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize(
    "name", ["h264_b.mp4", "open_gop.mp4", "open_gop.mkv", "vfr_hold.mp4", "trimmed.mp4"]
)
def test_random_spans(video: Get, name: str, data: st.DataObject) -> None:
    file = video(name)
    ticks = st.integers(0, file.end_us - 1)
    drawn = data.draw(st.lists(st.lists(ticks, min_size=1, max_size=4), min_size=1, max_size=5))
    spans = sorted((ClipSpan(min(t), max(t) + 1, tuple(sorted(t))) for t in drawn), key=lambda s: s.start_us)
    spans = list({span.start_us: span for span in spans}.values())
    assert numbers(PyAVDecoder(), str(file.path), spans) == expected(file, spans)


@pytest.mark.parametrize(
    ("name", "seeks"),
    [
        ("h264_b.mp4", True),
        ("open_gop.mp4", True),
        ("open_gop.mkv", True),
        ("trimmed.mp4", True),
        ("open_gop.ts", False),
        ("mpeg4_b.avi", False),
        ("mpeg2.mpg", False),
    ],
)
def test_late_clips_are_sought_where_that_is_safe(video: Get, name: str, seeks: bool) -> None:
    file = video(name)
    given_out = 0
    with open_media(str(file.path)) as media:
        reader = FrameReader(media)
        for _ in reader:
            given_out += 1
            if given_out == 1:
                reader.skip_to(file.end_us - 40_000)
        assert not reader.unproven
    assert (given_out < len(file.shown) // 2) is seeks


def test_a_seek_that_cannot_be_believed_starts_again(video: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intra refresh marks packets as keyframes that are none: the file is read through instead."""
    file = video("intra_refresh.mp4")
    spans = instants([file.end_us // 2, file.end_us - 1])
    with open_media(str(file.path)) as media:
        reader = FrameReader(media)
        list(zip(reader, range(1), strict=False))
        monkeypatch.setattr(reader, "_proves_seek", lambda frame: False)
        reader.skip_to(file.end_us // 2)
        assert list(reader) == [] and reader.unproven
    monkeypatch.setattr(frame_reader.FrameReader, "_proves_seek", lambda self, frame: False)
    for name in ("intra_refresh.mp4", "h264_b.mp4", "open_gop.mkv"):
        file = video(name)
        assert numbers(PyAVDecoder(), str(file.path), spans) == expected(file, spans)


def test_a_frame_wanted_twice_is_converted_once(video: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    file = video("h264_b.mp4")
    converted = []
    cut = pyav.cut_views
    monkeypatch.setattr(pyav, "cut_views", lambda *args: converted.append(1) or cut(*args))
    spans = [ClipSpan(0, 10 + i, (0, 1, 2, 40_000)) for i in range(3)]
    assert len(list(PyAVDecoder().decode(str(file.path), spans, VIEW, DecodeSpec()))) == 3
    assert len(converted) == 2


def test_rotation_turns_the_picture_upright(tmp_path: Path) -> None:
    """The turned file shows what the upright one shows, turned."""
    plain = encode(tmp_path / "plain.mp4", constant(3), options=QUIET, first_number=0b1011)
    view = ViewSpec(width=64, height=48)
    turned_view = ViewSpec(width=48, height=64)
    (upright,) = PyAVDecoder().decode(str(plain.path), instants([0]), view, DecodeSpec())
    for rotation, turns in ((90, 1), (180, 2), (-90, 3)):
        file = encode(
            tmp_path / f"{rotation}.mp4", constant(3), options=QUIET, first_number=0b1011, rotation=rotation
        )
        info = probe(str(file.path))
        assert info.rotation % 360 == rotation % 360
        assert (info.width, info.height) == ((96, 128) if turns % 2 else (128, 96))
        wanted = turned_view if turns % 2 else view
        (clip,) = PyAVDecoder().decode(str(file.path), instants([0]), wanted, DecodeSpec())
        difference = clip.frames_VTHWC[0, 0].astype(int) - np.rot90(upright.frames_VTHWC[0, 0], turns)
        assert np.abs(difference).max() <= 2


def test_the_end_of_the_file(video: Get) -> None:
    """Samples just past the end are the last frame; far past it they are that and damage; then nothing."""
    file = video("h264_b.mp4")
    last = file.shown[-1][1]
    spans = [
        ClipSpan(file.end_us - 1000, file.end_us + 90_000, (file.end_us - 1000, file.end_us + 90_000)),
        ClipSpan(file.end_us - 500, file.end_us + 400_000, (file.end_us - 500, file.end_us + 390_000)),
        ClipSpan(file.end_us + 200_000, file.end_us + 400_000, (file.end_us + 250_000,)),
    ]
    whole, cut = PyAVDecoder().decode(str(file.path), spans, VIEW, DecodeSpec())
    assert (whole.damage, cut.damage) == ("", "file ends at 6.400 s")
    for clip in (whole, cut):
        assert [read_number(picture) for picture in clip.frames_VTHWC[0]] == [last, last]


def test_a_change_of_size_in_mid_stream(tmp_path: Path) -> None:
    path = tmp_path / "joined.h264"
    parts = [
        encode(tmp_path / f"{w}.h264", constant(20), options=QUIET, size=(w, h), first_number=first)
        for w, h, first in ((128, 96, 0), (64, 64, 20))
    ]
    path.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    spans = instants([n * 40_000 + 20_000 for n in range(40)])
    got = numbers(PyAVDecoder(), str(path), spans)
    assert [n for values in got.values() for n in values] == list(range(40))


def test_joined_transport_streams_go_on(tmp_path: Path) -> None:
    """The clock of the second part starts anew; the frames follow the first part's all the same."""
    parts = [
        encode(tmp_path / f"{first}.ts", constant(50), options=QUIET, first_number=first) for first in (0, 50)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    with open_media(str(path)) as media:
        shown = [
            (frame.time_us, read_number(frame.frame.to_ndarray(format="rgb24")))
            for frame in FrameReader(media)
        ]
    assert [number for _, number in shown] == list(range(100))
    assert shown[-1][0] == pytest.approx(99 * 40_000, abs=2)
    assert probe(str(path)).duration_us == pytest.approx(100 * 40_000, abs=2)


@pytest.mark.data
def test_real_files_against_a_plain_decode(codecs: Path) -> None:
    """Any spans of any real file give what a plain decode of all frames gives."""
    tried = 0
    for path in sorted(codecs.iterdir()):
        if path.suffix in (".json", ".mp3") or path.name == "trunc.mp4":
            continue
        tried += 1
        uri = str(path)
        with open_media(uri) as media:
            times = [frame.time_us for frame in FrameReader(media, may_seek=False)]
        plain = list(PyAVDecoder(seek=False).decode(uri, instants(times), VIEW, DecodeSpec()))
        assert len(plain) == len(times) > 0
        sparse = [ClipSpan(times[i], times[i] + 1, (times[i],)) for i in (len(times) // 2, len(times) - 1)]
        for clip in PyAVDecoder().decode(uri, sparse, VIEW, DecodeSpec()):
            same = plain[times.index(clip.span.start_us)]
            assert np.array_equal(clip.frames_VTHWC, same.frames_VTHWC), (path.name, clip.span)
            assert clip.damage == same.damage == ""
    assert tried >= 15


def test_trimming_hides_frames(video: Get, tmp_path: Path) -> None:
    """The fixture is what it claims: packets before the cut are in the file and not shown."""
    source = video("h264_b.mp4")
    file = trim(source, tmp_path / "t.mp4", 30)
    with av.open(file.path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert sum(packet.is_discard for packet in packets) >= 5
    assert probe(str(file.path)).num_frames == 130


def test_variable_times_are_irregular() -> None:
    assert len({b - a for a, b in zip(variable(50), variable(50)[1:], strict=False)}) > 20


@pytest.mark.parametrize("name", RECIPES)
def test_key_frames_alone(video: Get, name: str) -> None:
    """Each sample shows the last keyframe at or before it (the first one, before any), up to the end of the file, and
    nothing is called damaged."""
    file = video(name)
    with open_media(str(file.path)) as media:
        keys = [f.time_us for f in FrameReader(media) if f.frame.key_frame]
    spans = instants(sorted({*(time for time, _ in file.shown), file.end_us - 1}))
    clips = list(PyAVDecoder().decode(str(file.path), spans, VIEW, DecodeSpec(key_frames=True)))
    assert [clip.span for clip in clips] == spans and {clip.damage for clip in clips} == {""}
    got = [read_number(clip.frames_VTHWC[0, 0]) for clip in clips]
    exact = [
        file.number_at(max((k for k in keys if k <= s.times_us[0]), default=keys[0])) == number
        for s, number in zip(spans, got, strict=True)
    ]
    reorder = 3 * len(keys) if name.endswith(".avi") else 0  # AVI keeps no presentation times
    assert sum(exact) >= len(exact) - reorder


def test_key_frames_are_cheaper_and_need_pyav(video: Get) -> None:
    file = video("h264_b.mp4")
    with open_media(str(file.path)) as media:
        few = sum(1 for _ in FrameReader(media, key_frames=True))
    with open_media(str(file.path)) as media:
        every = sum(1 for _ in FrameReader(media))
    assert every == len(file.shown) and few < every / 8
    with pytest.raises(ValueError, match="key_frames needs the backend 'pyav'"):
        DecodeSpec(backend="decord", key_frames=True)
