"""One decoding for student and teacher, or two: measured on some videos, where the run would decode them.

Two decodings pay where the student's frames are much cheaper than those for both, and the teacher is called for little.
What is measured is CPU time of decoding; what it costs to hold the teacher's frames meanwhile is not.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.frames import Clip, FrameRequest
from pipeline.tasks.label import LabelTask
from pipeline.video.events import video_events
from schemas.video import Video

BUDGET_SECONDS = 10.0
NUM_VIDEOS = 8
_CLIPS = 30
"""Of each video, from its start."""
_GAIN = 0.9


@dataclass(frozen=True)
class Decodings:
    """How many decodings, and why: CPU seconds of one for both and of two, over so many videos; nan where not
    measured."""

    number: Literal[1, 2]
    once_seconds: float = math.nan
    twice_seconds: float = math.nan
    videos: int = 0

    def __str__(self) -> str:
        if not self.videos:
            return f"{self.number} (not measured)"
        return (
            f"{self.number}: of {self.videos} videos one decoding took {self.once_seconds:.2f} s, two would take "
            f"{self.twice_seconds:.2f} s"
        )


def probe_decodings(
    task: LabelTask, videos: Sequence[Video], share: float, budget_seconds: float = BUDGET_SECONDS
) -> Decodings:
    """What is better where the teacher is called for ``share`` of the clips, of those drawn at random.

    Of a video that cannot be decoded what was measured before it failed counts.
    """
    once, twice = replace(task, decodings=1), replace(task, decodings=2)
    if twice.decodes_twice == once.decodes_twice:
        return Decodings(2 if once.decodes_twice else 1)
    stop = threading.Event()
    watch = threading.Timer(budget_seconds, stop.set)
    watch.daemon = True
    watch.start()
    try:
        return _measured(once, twice, videos, share, stop)
    finally:
        watch.cancel()


def _measured(
    once: LabelTask, twice: LabelTask, videos: Sequence[Video], share: float, stop: threading.Event
) -> Decodings:
    """Over the videos that are measured whole before ``stop``."""
    rng = np.random.default_rng(0)
    seconds, count = np.zeros(2), 0
    for video in videos[:NUM_VIDEOS]:
        starts = [span.start_us for span in twice.teacher_request.spans_of(video)][:_CLIPS]
        video = replace(video, only_us=tuple(starts))
        (one, _), (two, looked) = (_decoded(video, task.request, stop) for task in (once, twice))
        chosen = tuple(s for s, draw in zip(looked, rng.random(len(looked)), strict=True) if draw < share)
        each = np.array([one, two])
        if chosen:
            each[1] += _decoded(replace(video, only_us=chosen), twice.teacher_request, stop)[0]
        if stop.is_set():
            break
        seconds += each
        count += 1
    once_s, twice_s = seconds.tolist()
    return Decodings(2 if count and twice_s < _GAIN * once_s else 1, once_s, twice_s, count)


def _decoded(video: Video, request: FrameRequest, stop: threading.Event) -> tuple[float, list[int]]:
    """CPU seconds that a video's clips take, and the starts of those that are not idle."""
    began = time.thread_time()
    looked = [
        event.span.start_us
        for event in video_events(video, request, 1, stop)
        if isinstance(event, Clip) and not event.idle
    ]
    return time.thread_time() - began, looked
