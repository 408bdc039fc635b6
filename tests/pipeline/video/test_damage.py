"""Damaged files: what can be read is read, what is wrong is said, and nothing crashes or hangs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.decoder import DecodedClip
from pipeline.video.probe import probe
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from tests.video_files import QUIET, VideoFile, add_silence, constant, encode

VIEW = ViewSpec(width=32, height=32)
CLIPS = ClipSpec(num_frames=6, seconds=0.5)
Get = Callable[[str], VideoFile]


def decode(path: Path, end_us: int) -> list[DecodedClip]:
    return list(PyAVDecoder().decode(str(path), clip_spans(0, end_us, CLIPS), VIEW, DecodeSpec()))


def differs(clip: DecodedClip, intact: list[DecodedClip]) -> bool:
    (same,) = [c for c in intact if c.span == clip.span]
    return int(np.abs(clip.frames_VTHWC.astype(int) - same.frames_VTHWC).max()) > 40


@pytest.mark.parametrize(
    "name", ["h264_faststart.mp4", "h264_b.mkv", "with_audio.mkv", "vp9.webm", "mpeg4_b.avi"]
)
def test_a_file_cut_short_is_noticed(video: Get, tmp_path: Path, name: str) -> None:
    file = video(name)
    intact = decode(file.path, file.end_us)
    data = file.path.read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * 0.7)])
    info = probe(str(path))
    assert info.truncated
    if path.suffix != ".avi":  # ours has its length rewritten by what FFmpeg finds
        assert info.duration_us == pytest.approx(file.end_us, abs=100_000)
    clips = decode(path, file.end_us)
    assert 0 < len(clips) < len(intact)
    assert not any(differs(clip, intact) for clip in clips[:-2] if not clip.damage)


def test_damaged_stretches_end_with_the_next_intact_keyframe(video: Get, tmp_path: Path) -> None:
    file = video("open_gop.ts")
    intact = decode(file.path, file.end_us)
    data = bytearray(file.path.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 10 * 188] = b""
    path = tmp_path / "hole.ts"
    path.write_bytes(data)
    clips = decode(path, file.end_us)
    assert len(clips) == len(intact)
    damaged = [i for i, clip in enumerate(clips) if clip.damage]
    assert damaged and damaged[0] > 0 and damaged[-1] < len(clips) - 1
    assert not [clip.span for clip in clips if not clip.damage and differs(clip, intact)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["h264_b.mp4", "with_audio.mkv", "mpeg2.mpg", "mpeg4_b.avi", "vp9.webm"])
def test_flipped_bits_never_crash(video: Get, tmp_path: Path, name: str, seed: int) -> None:
    file = video(name)
    rng = random.Random(seed)
    data = bytearray(file.path.read_bytes())
    for _ in range(rng.choice([1, 5, 40])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path = tmp_path / name
    path.write_bytes(data)
    try:
        probe(str(path))
        clips = decode(path, file.end_us)
    except VideoError as error:
        assert error.permanent, error
    else:
        assert all(clip.frames_VTHWC.shape == (1, 6, 32, 32, 3) for clip in clips)


def test_flipped_bits_are_told(tmp_path: Path) -> None:
    """Of clips whose pictures changed, most carry damage; of the others none before the first hit does."""
    file = encode(tmp_path / "big.mp4", constant(150), options=QUIET, size=(256, 192), gop=25)
    intact = decode(file.path, file.end_us)
    changed = told = 0
    for seed in range(8):
        rng = random.Random(seed)
        data = bytearray(file.path.read_bytes())
        for _ in range(3):
            data[rng.randrange(2000, len(data) - 6000)] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(data)
        for clip in decode(path, file.end_us):
            if differs(clip, intact):
                changed += 1
                told += bool(clip.damage)
    assert changed >= 15
    assert told / changed > 0.6, (told, changed)


@pytest.mark.parametrize("name", ["vfr_hold.mp4", "vfr_hold.mkv"])
def test_a_long_hold_is_not_damage(video: Get, name: str) -> None:
    file = video(name)
    assert max(b - a for (a, _), (b, _) in zip(file.shown, file.shown[1:], strict=False)) == 6_000_000
    clips = decode(file.path, file.end_us)
    assert len(clips) > 20 and not [clip.damage for clip in clips if clip.damage]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"not a video at all\n" * 50, "Invalid data"),
        (
            "list.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n",
            "Invalid|playlist",
        ),
        ("noise.mkv", random.Random(0).randbytes(20_000), "Invalid data"),
    ],
)
def test_what_is_no_video(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (lambda: probe(str(path)), lambda: decode(path, 1_000_000)):
        with pytest.raises(VideoError, match=words) as caught:
            read()
        assert caught.value.permanent and caught.value.stage == "open"


def test_sound_alone_and_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        add_silence(container, container.add_stream("aac", rate=8000), 1.0)
    with pytest.raises(VideoError, match=r"no video stream.*audio") as caught:
        probe(str(path))
    assert caught.value.permanent

    file = encode(tmp_path / "full.ts", constant(20), options=QUIET)
    data = file.path.read_bytes()
    path = tmp_path / "headless.ts"
    path.write_bytes(data[: 188 * 4])
    for read in (lambda: probe(str(path)), lambda: decode(path, 1_000_000)):
        with pytest.raises(VideoError) as caught:
            read()
        assert caught.value.permanent


def test_nothing_is_printed(video: Get, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = video("h264_b.mp4")
    data = bytearray(file.path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 50] = bytes(50)
    path = tmp_path / "zeros.mp4"
    path.write_bytes(data)
    assert any(clip.damage for clip in decode(path, file.end_us))
    assert capfd.readouterr() == ("", "")
