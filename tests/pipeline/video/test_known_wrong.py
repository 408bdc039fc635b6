"""Each case in which decord or torchcodec is known to be wrong is found in a real file, and in no other."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.frame_reader import FrameReader
from pipeline.video.known_wrong import CASES, REFUSED, known_wrong, require_known_right
from pipeline.video.packet_scan import PacketScan, scan_packets, starts_clean
from pipeline.video.source import open_media
from schemas.errors import VideoError
from tests.video_files import QUIET, RECIPES, VideoFile, constant, encode, trim

Get = Callable[[str], VideoFile]
OTHERS = ("decord", "torchcodec")

REFUSED_FILES = {
    "open_gop.mp4": "open-gop",
    "open_gop.mkv": "open-gop",
    "mpeg4_b.mp4": "open-gop",
    "open_gop.ts": "stream",
    "mpeg2.mpg": "stream",
    "mpeg4_b.avi": "avi-b-frames",
    "h264_b.avi": "avi-b-frames",
    "intra_refresh.mp4": "intra-refresh",
    "trimmed.mp4": "trimmed",
}


def scan(path: Path) -> PacketScan:
    with open_media(str(path)) as media:
        return scan_packets(media)


def fine() -> PacketScan:
    times = np.arange(3) * 40_000
    lengths = np.full(3, 40_000)
    return PacketScan("mp4", "h264", 64, 48, Fraction(1), 40_000, times, lengths, ("", "", ""))


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_is_right_or_refused_by_name(video: Get, name: str) -> None:
    found = scan(video(name).path)
    for backend in OTHERS:
        case = known_wrong(backend, found)
        assert (case.name if case else None) == REFUSED_FILES.get(name)
    assert known_wrong("pyav", found) is None


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in REFUSED_FILES])
def test_times_are_those_of_the_default_decoder(video: Get, name: str) -> None:
    file = video(name)
    found = scan(file.path)
    with open_media(str(file.path)) as media:
        plain = [(frame.time_us, frame.length_us) for frame in FrameReader(media, may_seek=False)]
    assert list(zip(found.times_us_N.tolist(), found.lengths_us_N.tolist(), strict=True)) == plain
    assert [time for time, _ in file.shown] == pytest.approx(found.times_us_N.tolist(), abs=1)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"container": "mpegts"}, "stream"),
        ({"container": "avi"}, None),
        ({"has_b_frames": True}, None),
        ({"container": "avi", "has_b_frames": True}, "avi-b-frames"),
        ({"num_hidden": 1}, "trimmed"),
        ({"regular": False}, "timestamps"),
        ({"starts_with_keyframe": False}, "no-keyframe"),
        ({"num_leading": 1}, "open-gop"),
        ({"num_unclean_keyframes": 1}, "intra-refresh"),
    ],
)
def test_cases(changes: dict[str, object], name: str | None) -> None:
    found = replace(fine(), **changes)  # type: ignore[arg-type]
    case = known_wrong("decord", found)
    assert (case.name if case else None) == name
    require_known_right("pyav", found, "a.mp4")
    if case is None:
        require_known_right("decord", found, "a.mp4")
        return
    with pytest.raises(VideoError, match=r"decord is known to be wrong.*--decode.backend pyav") as caught:
        require_known_right("decord", found, "a.mp4")
    assert case.words in str(caught.value)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.stage, error.permanent, error.cause) == ("open", True, REFUSED)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_raw_stream_and_one_that_starts_late(tmp_path: Path) -> None:
    raw = encode(tmp_path / "raw.h264", constant(20), options=QUIET)
    case = known_wrong("decord", scan(raw.path))
    assert case is not None and case.name == "timestamps"
    whole = encode(tmp_path / "whole.mkv", constant(60), options=QUIET)
    case = known_wrong("decord", scan(without_first_keyframe(whole.path, tmp_path / "late.mkv")))
    assert case is not None and case.name == "no-keyframe"


def without_first_keyframe(source: Path, path: Path) -> Path:
    with av.open(source) as reader, av.open(path, "w") as writer:
        out = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if number > 0 and packet.dts is not None:
                packet.stream = out
                writer.mux(packet)
    return path


def test_trimming_at_a_keyframe_hides_nothing(video: Get, tmp_path: Path) -> None:
    assert known_wrong("decord", scan(trim(video("h264_b.mp4"), tmp_path / "t.mp4", 36).path)) is None


def test_rotation_and_pixel_aspect_are_as_displayed(tmp_path: Path) -> None:
    file = encode(tmp_path / "turned.mp4", constant(3), options=QUIET, size=(128, 96), rotation=90)
    found = scan(file.path)
    assert (found.width, found.height) == (96, 128)


def test_corrupt_packets_are_damage_until_the_next_keyframe(video: Get, tmp_path: Path) -> None:
    data = video("h264_faststart.mp4").path.read_bytes()
    path = tmp_path / "short.mp4"
    path.write_bytes(data[: int(len(data) * 0.7)])
    damage = scan(path).damage
    assert damage[0] == "" and "corrupt packet" in damage


def test_files_without_frames(tmp_path: Path) -> None:
    file = encode(tmp_path / "full.ts", constant(20), options=QUIET)
    path = tmp_path / "headless.ts"
    path.write_bytes(file.path.read_bytes()[: 188 * 4])
    with pytest.raises(VideoError) as caught:
        scan(path)
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("extradata", "packet", "clean"),
    [
        (b"", b"\0\0\0\1\x09\xf0\0\0\1\x67\x64\0\0\1\x65\x88", True),
        (b"", b"\0\0\0\1\x09\xf0\0\0\1\x06\x06\0\0\1\x41\x88", False),
        (b"\1\x64\0\x0a\xff", b"\0\0\0\2\x06\x05\0\0\0\2\x65\x88", True),
        (b"\1\x64\0\x0a\xff", b"\0\0\0\2\x06\x06\0\0\0\2\x41\x88", False),
        (b"\1\x64\0\x0a\xff", b"\0\0\0\2\x06\x06", True),
        (b"", b"", True),
    ],
)
def test_only_idr_pictures_are_clean_starts(extradata: bytes, packet: bytes, clean: bool) -> None:
    assert starts_clean("h264", extradata, packet) is clean
    assert starts_clean("vp9", extradata, packet)
