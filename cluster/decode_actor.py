"""The decode actor: opens videos in a process of its own, which a video may crash, hang or swell.

It answers one call after another; in a thread beside that it gives signs of life. A fatal signal leaves its Python
stack in a file, the actor's last words. It keeps the video open between the calls of one ticket.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import ray

from cluster.decode_calls import Chunk, DecodeCall, Health, Hello, Part
from cluster.groups import in_group
from cluster.notes import Notes
from pipeline.frames import Clip, Event, ProbeRequest, Request
from pipeline.video.events import video_events
from pipeline.video.pulse import PULSE

WORDS_PREFIX = "locum-last-words-"
_STALE_SECONDS = 60.0


class DecodeActor:
    """Made an actor by `actor_class`. ``max_attempts`` is how often a video is tried when its storage fails."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._ticket = ""
        self._events: Iterator[Event] = iter(())
        self._stop = threading.Event()
        self._notes = Notes()
        sweep_words()
        file, self._words_path = tempfile.mkstemp(prefix=f"{WORDS_PREFIX}{os.getpid()}-")
        self._words = os.fdopen(file, "w")
        faulthandler.enable(self._words)
        self._notes.attach()

    def hello(self) -> Hello:
        """Who this is."""
        return Hello(os.getpid(), ray.get_runtime_context().get_node_id(), self._words_path)

    def take(self, call: DecodeCall) -> Chunk:
        """The events that ``call`` asks for."""
        started, cpu = time.perf_counter(), time.thread_time()
        if isinstance(call.request, ProbeRequest):
            events = self._probe(call.parts, call.request)
            decode_seconds = time.thread_time() - cpu
        else:
            events = tuple(self._next(part, call.request, call.max_clips) for part in call.parts)
            decode_seconds = time.thread_time() - cpu
        read_seconds = max(0.0, time.perf_counter() - started - decode_seconds)
        return Chunk(
            events, decode_seconds, read_seconds, time.time(), resident_bytes(os.getpid()), self._notes.take()
        )

    @in_group("health")
    def health(self) -> Health:
        """A sign of life; it does not come while something holds the interpreter's lock."""
        return Health(PULSE.beats, PULSE.doing, resident_bytes(os.getpid()))

    def _next(self, part: Part, request: Request, max_clips: int | None) -> tuple[Event, ...]:
        if part.ticket != self._ticket:
            self._close()
            self._ticket = part.ticket
            self._events = video_events(
                part.video, request, self._max_attempts, self._stop, before=part.before
            )
        return tuple(_first_clips(self._events, max_clips))

    def _probe(self, parts: tuple[Part, ...], request: ProbeRequest) -> tuple[tuple[Event, ...], ...]:
        def one(part: Part) -> tuple[Event, ...]:
            found = video_events(part.video, request, self._max_attempts, self._stop, before=part.before)
            return tuple(found)

        with ThreadPoolExecutor(min(request.num_threads, len(parts))) as pool:
            return tuple(pool.map(one, parts))

    def _close(self) -> None:
        if isinstance(self._events, Generator):
            self._events.close()
        self._events = iter(())


def _first_clips(events: Iterator[Event], max_clips: int | None) -> Iterator[Event]:
    """Events up to the clip of that number; all where None."""
    clips = itertools.count(1)
    for event in events:
        yield event
        if isinstance(event, Clip) and next(clips) == max_clips:
            return


def sweep_words() -> None:
    """Remove files for last words that nobody came for, of actors that are gone."""
    for path in Path(tempfile.gettempdir()).glob(f"{WORDS_PREFIX}*-*"):
        pid = path.name.removeprefix(WORDS_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError, ValueError):  # another user's, or gone by now
            old = time.time() - path.stat().st_mtime > _STALE_SECONDS
            if old and not psutil.pid_exists(int(pid)):
                path.unlink()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process of this machine, shared memory aside; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as f:
            _, resident, shared = f.read().split()[:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def actor_class() -> ray.actor.ActorClass[DecodeActor]:
    """`DecodeActor` as a Ray actor class: one thread for calls, one for signs of life; never restarted by Ray."""
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"health": 1})(DecodeActor)
