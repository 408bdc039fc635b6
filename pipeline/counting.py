"""A frame source that tells how many clips, or probed files, went by; those of a second look are not counted again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.frames import Event, FrameSource, Request, VideoEnd
from schemas.shard import Shard


class CountingFrames:
    """Calls ``tick`` with the number of clips that went by."""

    def __init__(self, inner: FrameSource, tick: Callable[[int], None]) -> None:
        self._inner, self._tick = inner, tick

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        for event in self._inner.stream(shard, request):
            if not isinstance(event, VideoEnd):
                self._tick(1)
            yield event

    def prefetch(self, shard: Shard, request: Request) -> None:
        self._inner.prefetch(shard, request)

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        return self._inner.stream_ahead(shard, request)

    def close(self) -> None:
        self._inner.close()
