"""A fault of the storage is never taken for damage, wherever it strikes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.video.probe import probe
from pipeline.video.pyav import PyAVDecoder
from pipeline.video.source import local_path, open_media
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from tests.video_files import VideoFile

Get = Callable[[str], VideoFile]


class StoreDown(Exception):
    """Stands for the many exceptions of storage clients that are not OSError."""


class FailingFile:
    """A real file that fails for good after so many bytes were read from it."""

    def __init__(self, raw: Any, good_bytes: int, error: Exception) -> None:
        self.raw, self.left, self.error = raw, good_bytes, error

    def read(self, size: int = -1) -> bytes:
        if self.left <= 0:
            raise self.error
        data: bytes = self.raw.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class FailingFileSystem(MemoryFileSystem):
    protocol = "failing"
    cachable = False
    good_bytes = 0
    error: Exception = OSError("unset")

    def open(self, path: str, mode: str = "rb", **settings: Any) -> Any:
        raw = MemoryFileSystem().open(path.replace("failing://", ""), mode)
        return FailingFile(raw, self.good_bytes, self.error)


@pytest.fixture
def failing(video: Get) -> Iterator[Callable[[str, float, Exception], str]]:
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)

    def put(name: str, share: float, error: Exception) -> str:
        data = video(name).path.read_bytes()
        with fsspec.open(f"memory://{name}", "wb") as out:
            out.write(data)
        FailingFileSystem.good_bytes, FailingFileSystem.error = int(len(data) * share), error
        return f"failing://{name}"

    yield put


@pytest.mark.parametrize("error", [StoreDown("gone"), TimeoutError("slow"), PermissionError("expired")])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["h264_faststart.mp4", "h264_b.mkv", "open_gop.ts", "mpeg2.mpg"])
def test_failing_reads_are_passing_faults(
    video: Get,
    failing: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
    name: str,
    share: float,
    error: Exception,
) -> None:
    uri = failing(name, share, error)
    spans = clip_spans(0, video(name).end_us, ClipSpec(num_frames=4, seconds=0.5))
    with pytest.raises(VideoError) as caught:
        list(PyAVDecoder().decode(uri, spans, ViewSpec(width=16, height=16), DecodeSpec()))
    assert not caught.value.permanent
    assert caught.value.cause == type(error).__name__
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["open_gop.ts", "h264_b.mkv"])
def test_failing_reads_while_probing(failing: Callable[..., str], name: str) -> None:
    with pytest.raises(VideoError) as caught:
        probe(failing(name, 0.0, StoreDown("gone")))
    assert not caught.value.permanent


def test_a_missing_file_is_not_damage(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "no.mp4"), (tmp_path / "no.mp4").as_uri(), "memory://no/such.mp4"):
        with pytest.raises(VideoError) as caught:
            probe(uri)
        assert (caught.value.permanent, caught.value.cause, caught.value.stage) == (
            False,
            "FileNotFoundError",
            "open",
        )
        assert pickle.loads(pickle.dumps(caught.value)).cause == "FileNotFoundError"


def test_names_that_ffmpeg_would_take_for_protocols(
    video: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = video("one_frame.mp4").path.read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "%03d.mp4", "with space ü.mp4", "bad\udcff.mp4"):
        Path(name).write_bytes(data)
        assert probe(name).num_frames == 1, name


def test_local_path() -> None:
    assert local_path("s3://bucket/a.mp4") is None and local_path("zip::file:///a.zip") is None
    assert local_path("file:///a/b.mp4") == "/a/b.mp4"


def test_two_readers_of_one_memory_file(video: Get) -> None:
    """fsspec hands out the same object twice; positions must not mix."""
    file = video("h264_b.mp4")
    with fsspec.open("memory://shared.mp4", "wb") as out:
        out.write(file.path.read_bytes())
    with open_media("memory://shared.mp4") as one, open_media("memory://shared.mp4") as two:
        counts = [0, 0]
        for packets in zip(one.container.demux(one.stream), two.container.demux(two.stream), strict=True):
            for i, packet in enumerate(packets):
                counts[i] += packet.size > 0
    assert counts == [160, 160]
