"""From times to numbers of frames, for tools that know nothing else. Pure.

Exact at a constant frame rate. Where it varies the numbers are off, for what is known of a file is its mean rate: the
times are in the formats that hold times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from schemas.clip import US

_ROUNDING = 1e-6
"""Of a frame: what a rate that is no exact number, or a time in whole microseconds, is off by."""


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """Frames ``first`` to ``last``, both within, counted from 0."""

    first: int
    last: int


def frame_span(start_us: int, end_us: int, fps: float) -> FrameSpan | None:
    """The frames whose times lie in ``[start_us, end_us)``; None where there are none, or the rate is not known.

    Stretches that do not overlap share no frame.
    """
    if not fps > 0 or not math.isfinite(fps):
        return None
    first, past = (_frames_before(t, fps) for t in (start_us, end_us))
    return FrameSpan(first, past - 1) if first < past else None


def _frames_before(time_us: int, fps: float) -> int:
    """Number of frames that begin before a time."""
    exact = time_us * fps / US
    return max(0, math.ceil(exact - max(_ROUNDING, fps / US)))
