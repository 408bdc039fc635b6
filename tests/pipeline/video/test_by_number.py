"""Frames by number, with libraries that are made up: batches, checks, and whose fault an error is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.video import by_number
from pipeline.video.by_number import DISAGREES, decode_by_number, require_times
from pipeline.video.decoder import DecodedClip
from pipeline.video.packet_scan import PacketScan
from pipeline.video.source import Media
from schemas.clip import ClipSpan
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from tests.video_files import VideoFile

Get = Callable[[str], VideoFile]
VIEW = ViewSpec(width=128, height=96)


class Library:
    """Frames whose pixels are their number; counts what is asked of it."""

    def __init__(self, num_frames: int = 160, error: Exception | None = None, width: int = 128) -> None:
        self.num_frames, self.error, self.width = num_frames, error, width
        self.asked: list[list[int]] = []

    def __call__(self, media: Media, scan: PacketScan) -> Library:
        return self

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        self.asked.append(list(numbers))
        if self.error is not None:
            raise self.error
        values = np.array(numbers, np.uint8)[:, None, None, None]
        return np.broadcast_to(values, (len(numbers), 96, self.width, 3))


def decode(path: Path, library: Library, times: Sequence[int]) -> list[DecodedClip]:
    spans = [ClipSpan(time, time + 1, (time,)) for time in times]
    return list(decode_by_number("made-up", library, str(path), spans, [VIEW], DecodeSpec()))


def test_only_needed_frames_are_asked_for_in_order_once_and_in_batches(video: Get) -> None:
    file, library = video("h264_b.mp4"), Library()
    times = [0, 1, 40_000, 39_999, *range(200_000, 5_000_000, 120_000)]
    clips = decode(file.path, library, sorted(times))
    got = [int(clip.frames_VTHWC[0, 0, 0, 0, 0]) for clip in clips]
    assert got == [file.number_at(time) for time in sorted(times)]
    asked = [number for batch in library.asked for number in batch]
    assert asked == sorted(set(got))
    assert max(map(len, library.asked)) == by_number.BATCH_FRAMES


def test_a_batch_is_bounded_in_bytes(video: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, frames in ((3 * 128 * 96 * 3, 3), (1, 1)):
        monkeypatch.setattr(by_number, "BATCH_BYTES", limit)
        library = Library()
        decode(video("h264_b.mp4").path, library, range(0, 400_000, 40_000))
        assert max(map(len, library.asked)) == frames


def test_a_library_that_disagrees_is_not_believed(video: Get) -> None:
    path = video("h264_b.mp4").path
    for library, words in ((Library(159), "159 frames"), (Library(width=130), "130")):
        with pytest.raises(VideoError, match=words) as caught:
            decode(path, library, [0])
        assert (caught.value.cause, caught.value.permanent) == (DISAGREES, True)


def test_times_are_held_to_the_packets() -> None:
    expected = np.array([0, 40_000, 36_000_000_000])
    require_times("made-up", "a.mp4", np.array([0.0, 0.0402, 36_000.005]), expected)
    require_times("made-up", "a.mp4", (expected / 1e6).astype(np.float32), expected)
    for wrong in ([0.0, 0.041, 36_000.0], [0.0, 0.04, 36_000.02], [0.0, np.nan, 36_000.0]):
        with pytest.raises(VideoError, match="disagrees") as caught:
            require_times("made-up", "a.mp4", np.array(wrong), expected)
        assert caught.value.cause == DISAGREES


def test_whose_fault_an_error_is(video: Get, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(video("h264_b.mp4").path.read_bytes())
    with pytest.raises(VideoError, match=r"bad packet.*--decode.backend pyav") as caught:
        decode(path, Library(error=RuntimeError("first line\nbad packet")), [0])
    assert (caught.value.permanent, caught.value.cause) == (True, "RuntimeError")
    with pytest.raises(VideoError) as caught:
        decode(path, Library(error=MemoryError()), [0])
    assert not caught.value.permanent

    class Goes(Library):
        def pictures(self, numbers: Sequence[int]) -> np.ndarray:
            path.unlink()
            raise RuntimeError("cannot read")

    with pytest.raises(VideoError) as caught:
        decode(path, Goes(), [0])
    assert (caught.value.permanent, caught.value.cause) == (False, "FileNotFoundError")


def test_a_failing_storage_is_a_passing_fault(video: Get) -> None:
    import fsspec

    with fsspec.open("memory://by-number.mp4", "wb") as out:
        out.write(video("h264_b.mp4").path.read_bytes())

    class Fails(Library):
        def __call__(self, media: Media, scan: PacketScan) -> Library:
            assert media.file is not None
            media.file.fault = TimeoutError("slow")
            self.error = RuntimeError("end of file")
            return self

    spans = [ClipSpan(0, 1, (0,))]
    with pytest.raises(VideoError) as caught:
        list(decode_by_number("made-up", Fails(), "memory://by-number.mp4", spans, [VIEW], DecodeSpec()))
    assert (caught.value.permanent, caught.value.cause) == (False, "TimeoutError")
