"""Clips: which stretches of a video are looked at, and at which instants. Pure integer arithmetic.

All times are integer microseconds since the presentation time of the video's first frame. A clip is
``[start_us, end_us)``; its frames are those *displayed* at the sample times: for a time t, the last frame
with presentation time <= t. Sampling is by time and never by frame number, so a variable frame rate needs
no special case.

A video (or segment) shorter than one clip gives one clip that spans all of it. Its samples keep the
spacing of a full clip and those past the end repeat the last frame, so motion keeps its speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from schemas.spec import Spec

US = 1_000_000


class ClipSpec(Spec):
    """How a video is cut into clips, and a clip into frames."""

    num_frames: int = Field(16, ge=1, le=1024)
    """Frames sampled from each clip, evenly in time."""
    seconds: float = Field(2.0, ge=0.001, le=3600)
    """Length of a clip."""
    stride_seconds: float | None = Field(None, ge=0.001)
    """From one clip's start to the next one's; the length of a clip where not given."""
    tail: Literal["cover", "drop"] = "cover"
    """What to do with what is left at the end: 'cover' it by a last clip that ends with the video
    (and overlaps the one before), or 'drop' it."""
    max_clips: int | None = Field(None, ge=1)
    """At most so many clips a video, spread evenly over it; all where not given."""

    @property
    def length_us(self) -> int:
        return max(1, round(self.seconds * US))

    @property
    def stride_us(self) -> int:
        return self.length_us if self.stride_seconds is None else max(1, round(self.stride_seconds * US))

    def cuts_like(self, other: ClipSpec) -> bool:
        """Whether both cut videos into the same clips, whatever they sample of each."""

        def cut(spec: ClipSpec) -> tuple[int, int, str, int | None]:
            return spec.length_us, spec.stride_us, spec.tail, spec.max_clips

        return cut(self) == cut(other)


@dataclass(frozen=True, slots=True)
class ClipSpan:
    """One clip of a video: ``[start_us, end_us)`` and its sample times, all in microseconds of the file.

    ``also_us`` are the sample times of further streams of frames, each with a number of frames of its own.
    """

    start_us: int
    end_us: int
    times_us: tuple[int, ...]
    also_us: tuple[tuple[int, ...], ...] = ()


# A remainder shorter than this share of a clip is not worth a clip of its own.
_MIN_TAIL_SHARE = 0.1


def count_clips(duration_us: int, spec: ClipSpec) -> int:
    """Number of clips of a stretch of ``duration_us`` microseconds; 0 only for an empty stretch."""
    if duration_us <= 0:
        return 0
    return len(_starts(duration_us, spec))


def count_clips_N(durations_us_N: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """`count_clips` for an int64 array of N durations; int32 array of N counts."""
    d = durations_us_N.astype(np.int64)
    length, stride = spec.length_us, spec.stride_us
    whole = np.where(d >= length, (d - length) // stride + 1, 1)
    if spec.tail == "cover":
        left = d - ((whole - 1) * stride + length)
        whole = whole + (left >= max(1, int(length * _MIN_TAIL_SHARE)))
    if spec.max_clips is not None:
        whole = np.minimum(whole, spec.max_clips)
    return np.where(d <= 0, 0, whole).astype(np.int32)


def clip_spans(start_us: int, end_us: int, spec: ClipSpec, also: Sequence[int] = ()) -> list[ClipSpan]:
    """The clips of the stretch ``[start_us, end_us)``, sorted by start, without duplicates.

    Every clip lies inside the stretch, except that a stretch shorter than a clip gives the one clip
    ``[start_us, end_us)``. Sample times are the midpoints of ``num_frames`` equal parts of a full clip
    length, clamped to the stretch; ``also`` holds the numbers of frames of further streams.
    """
    spans = []
    for offset in _starts(end_us - start_us, spec) if end_us > start_us else ():
        start = start_us + offset
        times, *more = (sample_times(start, end_us, spec.length_us, n) for n in (spec.num_frames, *also))
        spans.append(ClipSpan(start, min(start + spec.length_us, end_us), times, tuple(more)))
    return spans


def sample_times(start_us: int, limit_us: int, length_us: int, num_frames: int) -> tuple[int, ...]:
    """Times of the frames of a clip that starts at ``start_us``; none is at or past ``limit_us``."""
    n, length = num_frames, length_us
    return tuple(min(start_us + (2 * i + 1) * length // (2 * n), limit_us - 1) for i in range(n))


def _starts(duration_us: int, spec: ClipSpec) -> list[int]:
    length, stride = spec.length_us, spec.stride_us
    if duration_us < length:
        return [0]
    starts = list(range(0, duration_us - length + 1, stride))
    left = duration_us - (starts[-1] + length)
    if spec.tail == "cover" and left >= max(1, int(length * _MIN_TAIL_SHARE)):
        starts.append(duration_us - length)
    if spec.max_clips is not None and len(starts) > spec.max_clips:
        n, m = len(starts), spec.max_clips
        starts = [starts[(2 * i + 1) * n // (2 * m)] for i in range(m)]
    return starts
