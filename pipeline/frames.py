"""The seam between tasks and videos: what a task asks for, and the stream that answers.

A task never opens a video. It is handed a `FrameSource` and iterates over one shard's events in plan order:
for each video its clips sorted by start (or what probing found), then one `VideoEnd`. `LocalRunner` opens videos in
this process; another runner may do it elsewhere, in processes that a video can crash, and stream the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from schemas.clip import ClipSpan, ClipSpec, clip_spans
from schemas.shard import Failure, Shard
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video


@dataclass(frozen=True, slots=True)
class Stream:
    """More frames of the same clips: so many each, and what is seen of them."""

    num_frames: int
    view: ViewSpec


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """Which frames of a video a task wants, and in which shape. Those of ``also`` come with them, of one decoding.
    Clips that are ``idle`` by the sizes of packets (`pipeline.video.activity`; 0: none is) come without frames, but of
    videos that are wanted in full."""

    clip: ClipSpec
    view: ViewSpec
    decode: DecodeSpec
    also: tuple[Stream, ...] = ()
    idle: float = 0.0

    @property
    def clip_bytes(self) -> int:
        """Bytes of the frames of one clip."""
        streams = (Stream(self.clip.num_frames, self.view), *self.also)
        return sum(s.view.num_views * s.num_frames * s.view.height * s.view.width * 3 for s in streams)

    def spans(self, start_us: int, end_us: int) -> list[ClipSpan]:
        """The clips of a stretch of a video, with the sample times of all streams."""
        return clip_spans(start_us, end_us, self.clip, [stream.num_frames for stream in self.also])

    def spans_of(self, video: Video) -> list[ClipSpan]:
        """The clips that are wanted of a video."""
        spans = self.spans(video.start_us, video.end_us)
        if video.only_us is None:
            return spans
        only = frozenset(video.only_us)
        return [span for span in spans if span.start_us in only]


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """No frames, but what each file is. ``num_threads`` files are looked at together, for it is mostly waiting."""

    num_threads: int = 4


Request = FrameRequest | ProbeRequest


@dataclass(frozen=True, slots=True)
class Delivered:
    """What of a video was handed on before, by a decoder that did not live to end it.

    ``last_start_us`` is the start of the last clip of those, ``attempts`` how many decoders the video has cost.
    """

    attempts: int = 0
    num_clips: int = 0
    num_damaged: int = 0
    damage: str = ""
    last_start_us: int = -1


@dataclass(slots=True)
class StreamFrames:
    """Frames of a further stream of a clip: uint8 RGB (views, time, height, width, colour); ``damage`` as of a clip."""

    frames_VTHWC: np.ndarray
    damage: str = ""


@dataclass(slots=True)
class Clip:
    """Decoded frames of one clip.

    ``frames_VTHWC`` is uint8 RGB: views, time, height, width, colour. ``damage`` says in words what is wrong
    with the frames, and is empty where nothing is. ``also`` has those of each further stream, of the same decoding.
    An ``idle`` clip has no frames, but of a video that is wanted in full.
    """

    video_id: str
    span: ClipSpan
    frames_VTHWC: np.ndarray
    damage: str
    decode_ms: float
    also: tuple[StreamFrames, ...] = ()
    idle: bool = False

    @property
    def num_bytes(self) -> int:
        """Of all frames."""
        return self.frames_VTHWC.nbytes + sum(stream.frames_VTHWC.nbytes for stream in self.also)


@dataclass(slots=True)
class Probed:
    """What probing found of one file: a row of `schemas.video.PROBE_SCHEMA`."""

    video_id: str
    row: dict[str, Any]


@dataclass(slots=True)
class VideoEnd:
    """Nothing more of this video. ``failure`` says what was missing or damaged, if anything was.

    After a passing failure (``failure.permanent`` is false) the clips that came before must be dropped.
    """

    video_id: str
    failure: Failure | None


Event = Clip | Probed | VideoEnd


class FrameSource(Protocol):
    """What is asked of the videos of whole shards, in plan order."""

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        """Events of ``shard``; the caller reads them to the end."""
        ...

    def prefetch(self, shard: Shard, request: Request) -> None:
        """Start to decode ``shard``, which will be streamed next; returns at once."""
        ...

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        """As `stream`, at once, and ahead of what was prefetched, which is kept: for a second look at videos that were
        just streamed."""
        ...

    def close(self) -> None:
        """Stop decoding and free what is held; the source is not used again."""
        ...


class NoFrames:
    """The frame source of tasks that need none."""

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        raise ValueError("this task asked for no frames, so there is no source to stream from")

    def prefetch(self, shard: Shard, request: Request) -> None:
        raise ValueError("this task asked for no frames, so there is nothing to prefetch")

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        return self.stream(shard, request)

    def close(self) -> None:
        """Nothing is held."""
