"""The seam between tasks and decoding: what a task asks for, and the stream that answers.

A task never opens a video. It is handed a `FrameSource` and iterates over one shard's events in plan order:
for each video its clips sorted by start, then one `VideoEnd`. `LocalRunner` decodes in this process; another
runner may decode elsewhere and stream the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from schemas.clip import ClipSpan, ClipSpec
from schemas.shard import Failure, Shard
from schemas.targets import DecodeSpec, ViewSpec


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """Which frames of a video a task wants, and in which shape."""

    clip: ClipSpec
    view: ViewSpec
    decode: DecodeSpec


@dataclass(slots=True)
class Clip:
    """Decoded frames of one clip.

    ``frames_VTHWC`` is uint8 RGB: views, time, height, width, colour. ``damage`` says in words what is wrong
    with the frames, and is empty where nothing is.
    """

    video_id: str
    span: ClipSpan
    frames_VTHWC: np.ndarray
    damage: str
    decode_ms: float


@dataclass(slots=True)
class VideoEnd:
    """No more clips of this video. ``failure`` says what was missing or damaged, if anything was.

    After a passing failure (``failure.permanent`` is false) the clips that came before must be dropped.
    """

    video_id: str
    failure: Failure | None


class FrameSource(Protocol):
    """Decoded clips of whole shards, in plan order."""

    def stream(self, shard: Shard, request: FrameRequest) -> Iterator[Clip | VideoEnd]:
        """Events of ``shard``; the caller reads them to the end."""
        ...

    def prefetch(self, shard: Shard, request: FrameRequest) -> None:
        """Start to decode ``shard``, which will be streamed next; returns at once."""
        ...

    def close(self) -> None:
        """Stop decoding and free what is held; the source is not used again."""
        ...


class NoFrames:
    """The frame source of tasks that need none."""

    def stream(self, shard: Shard, request: FrameRequest) -> Iterator[Clip | VideoEnd]:
        raise ValueError("this task asked for no frames, so there is no source to stream from")

    def prefetch(self, shard: Shard, request: FrameRequest) -> None:
        raise ValueError("this task asked for no frames, so there is nothing to prefetch")

    def close(self) -> None:
        """Nothing is held."""
