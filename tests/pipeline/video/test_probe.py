"""What probing says agrees with what decoding finds."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import fsspec
import pytest

from pipeline.video.frame_reader import FrameReader
from pipeline.video.probe import probe
from pipeline.video.source import open_media
from schemas.errors import VideoError
from tests.video_files import QUIET, RECIPES, VideoFile, constant, encode

Get = Callable[[str], VideoFile]


@pytest.mark.parametrize("name", RECIPES)
def test_duration_and_counts(video: Get, name: str) -> None:
    file = video(name)
    info = probe(str(file.path))
    assert info.duration_us == pytest.approx(file.end_us, abs=1000)
    assert info.num_frames == len(file.shown)
    assert not info.truncated
    assert info.has_audio is name.startswith("with_audio")
    assert info.num_keyframes is not None and 1 <= info.num_keyframes <= len(file.shown)
    assert info.fps > 0


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith((".mp4", ".mkv", ".avi"))])
def test_header_and_index_alone_agree(video: Get, name: str) -> None:
    """Not a local file: no scan. Two frames of difference are within what the decoder tolerates."""
    file = video(name)
    uri = f"memory://probe/{name}"
    with fsspec.open(uri, "wb") as out:
        out.write(file.path.read_bytes())
    info = probe(uri)
    assert info.duration_us == pytest.approx(file.end_us, abs=80_001)
    assert not info.truncated


def test_a_remote_file_cut_short_is_told_by_its_index(video: Get) -> None:
    data = video("h264_faststart.mp4").path.read_bytes()
    with fsspec.open("memory://cut.mp4", "wb") as out:
        out.write(data[: int(len(data) * 0.7)])
    info = probe("memory://cut.mp4")
    assert info.truncated and info.duration_us == 4_000_000


def test_longer_sound_does_not_stretch_the_video(video: Get) -> None:
    for name in ("with_audio.mp4", "with_audio.mkv"):
        assert probe(str(video(name).path)).duration_us == pytest.approx(4_000_000, abs=1000)


def test_codec_and_container(tmp_path: Path) -> None:
    file = encode(tmp_path / "a.mkv", constant(5), options=QUIET)
    info = probe(str(file.path))
    assert (info.codec, info.container, info.width, info.height) == ("h264", "matroska,webm", 128, 96)


@pytest.mark.data
def test_real_files(codecs: Path) -> None:
    checked = 0
    paths = [
        p for p in sorted(codecs.iterdir()) if p.suffix not in (".json", ".mp3") and p.name != "trunc.mp4"
    ]
    for folder in ("surveillance-fight", "ut-interaction"):
        paths += sorted(p for p in (codecs.parent / folder).rglob("*") if p.suffix in (".mp4", ".avi"))[::40]
    for path in paths:
        info = probe(str(path))
        with open_media(str(path)) as media:
            frames = [(frame.time_us, frame.length_us) for frame in FrameReader(media, may_seek=False)]
        full_us = frames[-1][0] + frames[-1][1]
        assert abs(info.duration_us - full_us) <= 2 * 1_000_000 / info.fps + 2000, path.name
        assert not info.truncated, path.name
        checked += 1
    assert checked >= 25


def test_a_length_that_cannot_be_is_damage_and_not_millions_of_clips(tmp_path: Path) -> None:
    days = encode(tmp_path / "days.mkv", [*constant(11), Fraction(7200)], options=QUIET)
    with pytest.raises(VideoError, match="12 frames in 7200 s") as caught:
        probe(str(days.path))
    assert caught.value.permanent and caught.value.cause == "ImplausibleLength"
    slides = encode(tmp_path / "slides.mkv", [*constant(11), Fraction(3000)], options=QUIET)
    assert probe(str(slides.path)).duration_us > 3_000_000_000 - 1
