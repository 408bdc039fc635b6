"""What is said of one file when it is probed: its row, or why there is none, over passing faults."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.frames import Delivered, Probed, ProbeRequest, VideoEnd
from pipeline.video import probe_events as module
from pipeline.video.decoder import MediaInfo
from pipeline.video.events import video_events
from pipeline.video.probe import probe
from pipeline.video.probe_events import probe_events
from schemas.errors import VideoError
from schemas.shard import Failure
from schemas.video import PROBE_SCHEMA, Video
from tests.video_files import VideoFile

Get = Callable[[str], VideoFile]


class FakeProbe:
    """Fails the first so many times, in a way that passes, and then is the real one."""

    def __init__(self, fails: int, cause: str = "Timeout") -> None:
        self.fails, self.cause, self.calls = fails, cause, 0

    def __call__(self, uri: str) -> MediaInfo:
        self.calls += 1
        if self.calls <= self.fails:
            raise VideoError("open", "no answer", permanent=False, cause=self.cause)
        return probe(uri)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeProbe]:
    def make(*args: object) -> FakeProbe:
        made = FakeProbe(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(module, "probe", made)
        monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
        return made

    return make


def item(path: Path) -> Video:
    return Video("item", str(path), 0, 0, 0)


def failure_of(path: Path, max_attempts: int = 3, before: Delivered = Delivered()) -> Failure:
    (end,) = probe_events(item(path), max_attempts, threading.Event(), before)
    assert isinstance(end, VideoEnd) and end.failure is not None
    return end.failure


def test_a_row_and_an_end(video: Get) -> None:
    found, end = video_events(item(video("h264_b.mkv").path), ProbeRequest(), 3, threading.Event())
    assert isinstance(found, Probed) and found.video_id == found.row["item_id"] == "item"
    assert set(found.row) == set(PROBE_SCHEMA.names)
    assert end == VideoEnd("item", None)


def test_a_passing_fault_is_tried_again(video: Get, fake: Callable[..., FakeProbe]) -> None:
    made = fake(2)
    found, end = probe_events(item(video("h264_b.mkv").path), 3, threading.Event())
    assert isinstance(found, Probed) and end == VideoEnd("item", None) and made.calls == 3


@pytest.mark.parametrize(("spent", "attempts"), [(0, 3), (1, 3), (2, 3), (7, 8)])
def test_decoders_that_it_cost_are_attempts(
    video: Get, fake: Callable[..., FakeProbe], spent: int, attempts: int
) -> None:
    made = fake(99)
    failure = failure_of(video("h264_b.mkv").path, before=Delivered(attempts=spent))
    assert (failure.attempts, failure.permanent, failure.error) == (attempts, False, "Timeout")
    assert made.calls == attempts - spent


def test_a_file_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    failure = failure_of(tmp_path / "none.mp4")
    assert (failure.error, failure.permanent, failure.attempts) == ("FileNotFoundError", False, 1)


def test_what_is_no_video_stays_none(tmp_path: Path, fake: Callable[..., FakeProbe]) -> None:
    made = fake(0)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    failure = failure_of(tmp_path / "empty.mp4")
    assert (failure.error, failure.permanent, failure.attempts) == ("EmptyFile", True, 1)
    failure = failure_of(tmp_path / "text.mp4", before=Delivered(attempts=1))
    assert (failure.permanent, failure.attempts, failure.missing_rows, made.calls) == (True, 2, 1, 1)


def test_nothing_is_said_after_the_end_was_asked_for(video: Get) -> None:
    stop = threading.Event()
    stop.set()
    assert list(probe_events(item(video("h264_b.mkv").path), 3, stop)) == []
