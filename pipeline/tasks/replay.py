"""Does the student say here what it said when its policy was certified? Some clips are decoded and asked about again.

Another decoder version, processor or precision may move what a student says; a certificate speaks of what it said.
Small differences are rounding; beyond that the certificate is void.

Shapes: N clips, K classes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.frames import Clip
from pipeline.tasks.answering import as_kept
from pipeline.tasks.label import LabelTask
from pipeline.uncertainty import softmax
from pipeline.video.events import video_events
from schemas.arrays import Float32
from schemas.video import Video

MOST_DIFFERENCE = 0.02
"""Of a probability."""


@dataclass(frozen=True)
class SaidBefore:
    """A clip of a video, and the student's logits (K,) of it."""

    video: Video
    start_us: int
    logits_K: Float32


@dataclass(frozen=True)
class Replayed:
    """The largest difference of a probability, and on which clip; of ``clips`` that could be read."""

    clips: int
    difference: float = 0.0
    where: str = ""

    @property
    def agrees(self) -> bool:
        return self.difference <= MOST_DIFFERENCE


def replayed(task: LabelTask, said: Sequence[SaidBefore]) -> Replayed:
    """Ask the student again, as ``task`` would. Clips that cannot be read do not count."""
    from pipeline.models.exported_student import ExportedStudent

    kept = task.spec.frames
    request = replace(task, decodings=2).request
    request = replace(request, clip=kept.clip, view=kept.view, decode=kept.decode, also=())
    frames, expected, names = [], [], []
    for one in said:
        video = replace(one.video, only_us=(one.start_us,))
        for event in video_events(video, request, 1, threading.Event()):
            if isinstance(event, Clip) and not event.damage:
                frames.append(as_kept(event.frames_VTHWC[0], kept))
                expected.append(one.logits_K)
                names.append(f"the clip at {one.start_us} us of {one.video.uri}")
    if not frames:
        return Replayed(0)
    ref = task.spec.student
    student = ExportedStudent(ref.program, ref.sha256, device=task.device, num_threads=task.num_threads)
    logits_NK, _ = student(np.stack(frames))
    gap_N = np.abs(softmax(logits_NK) - softmax(np.stack(expected).astype(np.float32))).max(axis=1)
    worst = int(gap_N.argmax())
    return Replayed(len(frames), float(gap_N[worst]), names[worst])
