"""Decoded clips for one process: a thread decodes ahead of the model, bounded in bytes.

Each shard is a job. One job is decoded at a time, in the order asked for; its clips wait in a buffer that all
jobs share the size of. Nothing here survives a decoder that hangs or crashes: for that, decode in another
process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from pipeline.frames import Clip, Event, ProbeRequest, Request
from pipeline.video.decoder import Decoder
from pipeline.video.events import video_events
from schemas.shard import Shard
from schemas.video import Video

_JOIN_SECONDS = 5.0


class LocalFrameSource:
    """A `pipeline.frames.FrameSource` of this process.

    ``decoder`` decodes, the one that each request names where not given; ``max_bytes`` bounds the frames that
    wait to be read (one clip is always let in); ``max_attempts`` is how often a video is tried when its storage
    fails.
    """

    def __init__(
        self, decoder: Decoder | None = None, max_attempts: int = 3, max_bytes: int = 512 << 20
    ) -> None:
        if max_attempts < 1 or max_bytes < 1:
            raise ValueError(f"max_attempts and max_bytes must be positive, got {max_attempts}, {max_bytes}")
        self._decoder = decoder
        self._max_attempts = max_attempts
        self._max_bytes = max_bytes
        self._waiting_bytes = 0
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def prefetch(self, shard: Shard, request: Request) -> None:
        """Start to decode ``shard`` after what was asked for before; returns at once.

        Raises
        ------
        ValueError
            If the source is closed.
        """
        with self._changed:
            if self._closed:
                raise ValueError("the frame source is closed")
            if not any(job.is_for(shard, request) for job in self._jobs):
                self._jobs.append(_Job(shard, request))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="locum-decode", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        """Events of ``shard`` in plan order. Jobs asked for before it and never streamed are given up.

        An exception of the decoder that is not a VideoError is raised here, after the events before it.
        """
        with self._changed:
            if not any(job.is_for(shard, request) for job in self._jobs):
                self._give_up_all()
            while self._jobs and not self._jobs[0].is_for(shard, request):
                self._give_up(self._jobs[0])
        self.prefetch(shard, request)
        job = self._jobs[0]
        try:
            while (event := self._take(job)) is not None:
                yield event
        finally:
            with self._changed:
                self._give_up(job)

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        """Events of ``shard``, decoded by the thread that reads them."""
        stop = threading.Event()
        try:
            for video in shard.videos:
                if self._closed:
                    raise ValueError("the frame source is closed")
                yield from video_events(video, request, self._max_attempts, stop, decoder=self._decoder)
        finally:
            stop.set()

    def close(self) -> None:
        """Stop after the frame under way and free what waits. Safe to call twice, and from any thread."""
        with self._changed:
            self._closed = True
            self._give_up_all()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    def _take(self, job: _Job) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: job.events or job.done or job.stop.is_set())
            if job.stop.is_set():
                raise ValueError("the frame source was closed while a shard was being streamed")
            if not job.events:
                if job.error is not None:
                    raise job.error
                return None
            event = job.events.popleft()
            self._waiting_bytes -= _num_bytes(event)
            self._changed.notify_all()
            return event

    def _give_up(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
        job.stop.set()
        self._waiting_bytes -= sum(map(_num_bytes, job.events))
        job.events.clear()
        self._changed.notify_all()

    def _give_up_all(self) -> None:
        for job in tuple(self._jobs):
            self._give_up(job)

    def _next_job(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(not job.done for job in self._jobs))
            return None if self._closed else next(job for job in self._jobs if not job.done)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            with _Carry(job):
                self._decode(job)
            with self._changed:
                job.done = True
                self._changed.notify_all()

    def _decode(self, job: _Job) -> None:
        if isinstance(job.request, ProbeRequest):
            self._probe(job, job.request.num_threads)
            return
        for video in job.shard.videos:
            for event in self._events(job, video):
                if not self._put(job, event):
                    return
            if job.stop.is_set():
                return

    def _probe(self, job: _Job, num_threads: int) -> None:
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="locum-probe")
        try:
            for events in pool.map(lambda video: list(self._events(job, video)), job.shard.videos):
                for event in events:
                    if not self._put(job, event):
                        return
        finally:
            pool.shutdown(cancel_futures=True)

    def _events(self, job: _Job, video: Video) -> Iterator[Event]:
        return video_events(video, job.request, self._max_attempts, job.stop, decoder=self._decoder)

    def _put(self, job: _Job, event: Event) -> bool:
        """Hand an event over when there is room; False where nobody wants it any more."""
        size = _num_bytes(event)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    job.stop.is_set()
                    or self._waiting_bytes == 0
                    or self._waiting_bytes + size <= self._max_bytes
                )
            )
            if job.stop.is_set():
                return False
            job.events.append(event)
            self._waiting_bytes += size
            self._changed.notify_all()
            return True


class _Job:
    """One shard to decode, and the events that wait to be read."""

    def __init__(self, shard: Shard, request: Request) -> None:
        self.shard = shard
        self.request = request
        self.events: deque[Event] = deque()
        self.done = False
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def is_for(self, shard: Shard, request: Request) -> bool:
        return self.shard == shard and self.request == request


class _Carry:
    """Carries an exception of the decode thread to the thread that reads the job."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._job.error = error
        return True


def _num_bytes(event: Event) -> int:
    return event.num_bytes if isinstance(event, Clip) else 0
