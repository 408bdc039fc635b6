"""The decoder protocol: one video's frames at given times, and what a file says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.frames import StreamFrames
from schemas.clip import ClipSpan
from schemas.targets import DecodeSpec, ViewSpec


@dataclass(slots=True)
class DecodedClip:
    """Frames of one span: uint8 RGB (views, time, height, width, colour); ``damage`` says what is wrong.

    ``also`` has those of each further stream, in the order of ``span.also_us``.
    """

    span: ClipSpan
    frames_VTHWC: np.ndarray
    damage: str = ""
    also: tuple[StreamFrames, ...] = ()


class Decoder(Protocol):
    """Decodes videos by presentation time.

    For a sample time t the frame is the last one with presentation time <= t, counted from the video's first
    frame. Spans come sorted by start; clips are yielded in that order, as soon as they are whole, so memory
    holds the clips under way and not the video. A span of which no frame exists (the file ends before it) is
    left out; one of which some are missing or were decoded from damaged data is yielded with its ``damage``.
    """

    name: str

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec,
        decode: DecodeSpec,
        also: Sequence[ViewSpec] = (),
    ) -> Iterator[DecodedClip]:
        """Yield the clips of ``spans``; ``also`` is what is seen of the frames of their further streams.

        Raises
        ------
        VideoError
            If nothing (more) can be read: ``permanent`` for damage, not permanent for a passing fault of the
            storage. Clips that were yielded before stand.
        """
        ...


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What probing found of one file. Times in microseconds.

    ``duration_us`` is from the first frame's presentation to the last one's end: as declared by the file
    where it declares it for the video, so that a file cut short is planned whole and the loss is seen;
    ``truncated`` says that fewer packets are there than were declared. ``num_frames`` and ``num_keyframes``
    are None where they were neither indexed nor counted. ``width`` and ``height`` are as displayed, after
    rotation (degrees) but before pixel aspect.
    """

    duration_us: int
    width: int
    height: int
    rotation: int
    fps: float
    num_frames: int | None
    num_keyframes: int | None
    codec: str
    container: str
    has_audio: bool
    truncated: bool
