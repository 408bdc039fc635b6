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

from pipeline.frames import StreamFrames
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
    """A clip under way. ``streams`` holds the frames (V, T, H, W, C) of each stream of which there are some."""

    span: ClipSpan
    missing: int
    streams: dict[int, np.ndarray] = field(default_factory=dict)
    damage: dict[int, list[str]] = field(default_factory=dict)


class Sampler(Generic[F]):
    """Fills the clips of ``spans`` (sorted by start) from frames pushed in display order.

    ``convert`` makes views (V, H, W, C) of a frame and is called at most once a frame; ``also`` does the same for
    each further stream of the spans.
    """

    def __init__(
        self,
        spans: Sequence[ClipSpan],
        convert: Callable[[F], np.ndarray],
        *also: Callable[[F], np.ndarray],
    ) -> None:
        if any(len(span.also_us) != len(also) for span in spans):
            raise ValueError(f"spans have other streams of frames than the {1 + len(also)} that are made")
        self._converts = (convert, *also)
        self._clips = deque(_OpenClip(span, sum(map(len, _streams(span)))) for span in spans)
        slots = sorted(
            (time_us, clip, stream, slot)
            for clip, span in enumerate(spans)
            for stream, times_us in enumerate(_streams(span))
            for slot, time_us in enumerate(times_us)
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

    def finish(
        self, lost: str = "", tolerance_us: int = END_TOLERANCE_US, shown_until_us: int = 0
    ) -> Iterator[DecodedClip]:
        """No more frames; ``lost`` says what was lost after the last one, which is shown until ``shown_until_us`` where
        that is later than its own end.

        Slots more than ``tolerance_us`` past its end repeat it with damage, and clips of which every sample
        lies past it are left out: every one of the first stream, so that others change nothing of its clips.
        """
        held = self._held
        if held is None:
            return
        held.length_us = max(held.length_us, shown_until_us - held.time_us)
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
        views: dict[int, np.ndarray] = {}
        end_us = held.time_us + held.length_us
        while self._slots and self._slots[0][0] < until_us:
            time_us, number, stream, slot = self._slots.popleft()
            if stream not in views:
                views[stream] = self._converts[stream](held.frame)
            clip = self._by_number[number]
            if stream not in clip.streams:
                v, h, w, c = views[stream].shape
                clip.streams[stream] = np.empty((v, len(_streams(clip.span)[stream]), h, w, c), np.uint8)
            clip.streams[stream][:, slot] = views[stream]
            clip.missing -= 1
            damage = held.damage or (lost if time_us >= end_us else "")
            words = clip.damage.setdefault(stream, [])
            if damage and damage not in words:
                words.append(damage)

    def _whole(self) -> Iterator[DecodedClip]:
        while self._clips and self._clips[0].missing == 0:
            clip = self._clips.popleft()
            streams, clip.streams = clip.streams, {}
            if len(streams) != len(self._converts):
                raise ValueError(f"span without sample times: {clip.span}")
            first, *also = (
                StreamFrames(streams[i], "; ".join(clip.damage[i][:3])) for i in range(len(self._converts))
            )
            yield DecodedClip(clip.span, first.frames_VTHWC, first.damage, tuple(also))


def _streams(span: ClipSpan) -> tuple[tuple[int, ...], ...]:
    """Sample times of each stream of frames."""
    return span.times_us, *span.also_us
