"""Which decoded frames belong to which slots of which clips. Pure: knows frames by their times only.

Frames come in display order. For a sample time t the frame is the last one with time <= t, so a frame's slots
are known once its successor has come: one frame is held back. A frame wanted by several slots is converted
once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from pipeline.video.decoder import DecodedClip
from schemas.clip import ClipSpan

F = TypeVar("F")

END_TOLERANCE_US = 100_000


def end_tolerance_us(frame_us: int) -> int:
    """How far past the last frame's end it still counts as shown: 100 ms or two frames of ``frame_us``.

    Containers round durations, some count packets that show nothing, and many do not say how long their last
    frame lasts.
    """
    return max(END_TOLERANCE_US, 2 * frame_us)


@dataclass(slots=True)
class TimedFrame(Generic[F]):
    """A frame and when it is shown. ``damage`` is what is wrong with its pixels; ``lost_before`` is what was
    lost between its forerunner and it; both in words, empty where nothing is."""

    time_us: int
    length_us: int
    frame: F
    damage: str = ""
    lost_before: str = ""


@dataclass(slots=True)
class _OpenClip:
    span: ClipSpan
    missing: int
    frames_VTHWC: np.ndarray | None = None
    damage: list[str] = field(default_factory=list)


class Sampler(Generic[F]):
    """Fills the clips of ``spans`` (sorted by start) from frames pushed in display order.

    ``convert`` makes views (V, H, W, C) of a frame and is called at most once a frame.
    """

    def __init__(self, spans: Sequence[ClipSpan], convert: Callable[[F], np.ndarray]) -> None:
        self._convert = convert
        self._clips = deque(_OpenClip(span, len(span.times_us)) for span in spans)
        slots = sorted(
            (time_us, clip, slot)
            for clip, span in enumerate(spans)
            for slot, time_us in enumerate(span.times_us)
        )
        self._slots = deque(slots)
        self._by_number = list(self._clips)
        self._held: TimedFrame[F] | None = None

    @property
    def next_time_us(self) -> int | None:
        """The earliest time for which no frame is known yet; None when all are."""
        return self._slots[0][0] if self._slots else None

    def push(self, frame: TimedFrame[F]) -> Iterator[DecodedClip]:
        """Take the next frame; yields the clips that are whole by it, in order."""
        held, self._held = self._held, frame
        if held is not None and self._slots and self._slots[0][0] < frame.time_us:
            self._fill(held, frame.time_us, frame.lost_before)
            yield from self._whole()

    def jump(self) -> None:
        """The next frame is not the successor of the last one; it starts at or before `next_time_us`."""
        self._held = None

    def finish(self, lost: str = "", tolerance_us: int = END_TOLERANCE_US) -> Iterator[DecodedClip]:
        """No more frames; ``lost`` says what was lost after the last one.

        Slots more than ``tolerance_us`` past its end repeat it with damage, and clips of which every sample
        lies past it are left out.
        """
        held = self._held
        if held is None:
            return
        end_us = held.time_us + held.length_us
        limit_us = end_us + tolerance_us
        beyond = {id(clip) for clip in self._clips if clip.span.times_us[0] >= limit_us}
        self._slots = deque(s for s in self._slots if id(self._by_number[s[1]]) not in beyond)
        self._fill(held, limit_us, lost)
        if self._slots:
            text = f"file ends at {end_us / 1e6:.3f} s"
            self._fill(held, self._slots[-1][0] + 1, f"{lost}; {text}" if lost else text)
        self._clips = deque(clip for clip in self._clips if id(clip) not in beyond)
        yield from self._whole()

    def _fill(self, held: TimedFrame[F], until_us: int, lost: str) -> None:
        views: np.ndarray | None = None
        end_us = held.time_us + held.length_us
        while self._slots and self._slots[0][0] < until_us:
            time_us, number, slot = self._slots.popleft()
            if views is None:
                views = self._convert(held.frame)
            clip = self._by_number[number]
            if clip.frames_VTHWC is None:
                v, h, w, c = views.shape
                clip.frames_VTHWC = np.empty((v, len(clip.span.times_us), h, w, c), np.uint8)
            clip.frames_VTHWC[:, slot] = views
            clip.missing -= 1
            damage = held.damage or (lost if time_us >= end_us else "")
            if damage and damage not in clip.damage:
                clip.damage.append(damage)

    def _whole(self) -> Iterator[DecodedClip]:
        while self._clips and self._clips[0].missing == 0:
            clip = self._clips.popleft()
            frames = clip.frames_VTHWC
            if frames is None:
                raise ValueError(f"span without sample times: {clip.span}")
            clip.frames_VTHWC = None
            yield DecodedClip(clip.span, frames, "; ".join(clip.damage[:3]))
