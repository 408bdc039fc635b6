"""The frame source of a worker: decode actors on CPUs, bounded in bytes, watched, killed and replaced.

`decode_queue` decides what is asked of whom; one thread here does it. An actor that crashes, hangs or swells takes
nobody with it: its death is counted against its video, and another takes its place.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from cluster.decode_calls import Chunk, Death, DecodeCall, Health, Hello
from cluster.decode_queue import DecodeQueue
from cluster.decoders import Decoder, MakeDecoder
from cluster.notes import Note
from pipeline.frames import Event, Request
from pipeline.logs import about
from pipeline.uris import scrubbed
from schemas.errors import LocumError, RetryableError
from schemas.shard import Shard, ShardKey

log = logging.getLogger("locum.decode")

_TICK_SECONDS = 1.0
_MAX_FAILED_STARTS = 3
_JOIN_SECONDS = 10.0
_PATIENCE_WITH_STORAGE = 5
_KILLED = "DecoderKilled"


@dataclass(frozen=True)
class PoolSettings:
    """Bounds of a decode pool; none of them changes a number.

    ``stall_seconds`` is how long an actor may go without a sign of progress (five times that while it waits for
    storage), ``max_decoder_bytes`` how much memory it may hold, ``max_bytes`` how much of frames may wait.
    """

    num_decoders: int = 1
    max_bytes: int = 256 << 20
    max_attempts: int = 3
    stall_seconds: float = 120.0
    max_decoder_bytes: int = 3 << 30
    decoder_name: str = ""


@dataclass(eq=False)
class _Slot:
    """A place for a decoder, and the one that is there."""

    number: int
    bundle: int
    decoder: Decoder
    hello: Hello | None = None
    doomed: Death | None = None
    open_calls: int = 0
    beats: int = -1
    beat_at: float = field(default_factory=time.monotonic)
    asked_health_at: float | None = None
    resident: int = 0
    resident_before: int = 0
    doing: str = ""


class DecodePool:
    """A `pipeline.frames.FrameSource` over `PoolSettings.num_decoders` decoders made by ``make``."""

    def __init__(self, make: MakeDecoder, settings: PoolSettings) -> None:
        self._make, self._settings = make, settings
        self._queue = DecodeQueue(settings.max_bytes, settings.max_attempts, settings.decoder_name)
        self._changed = threading.Condition()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._slots: dict[int, _Slot] = {}
        self._next_number = 0
        self._failed_starts = 0
        self._error: BaseException | None = None
        self._closed = False
        self._seconds: dict[str, float] = {}
        self._notes: list[Note] = []
        for bundle in range(settings.num_decoders):
            self._start(bundle)
        self._thread = threading.Thread(target=self._work, name="locum-decode-pool", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- the reader's side

    def prefetch(self, shard: Shard, request: Request) -> None:
        """Start on ``shard`` after what was asked for before; returns at once."""
        with self._changed:
            self._require_open()
            self._queue.add(shard, request)
        self._inbox.put(self._nothing)

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        """Events of ``shard`` in plan order. What was asked for before it is given up.

        Raises
        ------
        RetryableError
            If decode actors cannot be started.
        """
        return self._stream(shard, request, self._queue.put_first)

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        """Events of ``shard``, ahead of what was prefetched, which is kept."""
        return self._stream(shard, request, self._queue.interject)

    def _stream(
        self, shard: Shard, request: Request, put: Callable[[Shard, Request], None]
    ) -> Iterator[Event]:
        with self._changed:
            self._require_open()
            put(shard, request)
        self._inbox.put(self._nothing)
        try:
            while (event := self._take()) is not None:
                yield event
        finally:
            with self._changed:
                self._queue.drop(shard.key)
            self._inbox.put(self._nothing)

    def forget(self, key: ShardKey) -> None:
        """A shard that was prefetched will not be streamed."""
        with self._changed:
            self._queue.drop(key)
        self._inbox.put(self._nothing)  # there is room now

    def close(self) -> None:
        """Kill the decoders and free what waits."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._inbox.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)
        for slot in self._slots.values():
            slot.decoder.kill(slot.hello)
            if slot.hello is not None:
                slot.decoder.last_words(slot.hello)

    @property
    def waits_for(self) -> str:
        """What the reader waits for, in words; empty where frames are there."""
        with self._changed:
            uri = self._queue.waits_for
            if not uri:
                return ""
            slots = list(self._slots.items())  # the thread changes them without asking
            doing = next((s.doing for n, s in slots if self._queue.working_on(n) == uri), "")
            return f"frames of {scrubbed(uri)}" + (f" ({doing})" if doing else "")

    @property
    def waiting_bytes(self) -> int:
        """Bytes of frames that were asked for or have come, and that the reader has not taken."""
        with self._changed:
            return self._queue.waiting_bytes

    def take_seconds(self) -> dict[str, float]:
        """Seconds of the decoders by what they did, since the last call."""
        with self._changed:
            seconds, self._seconds = self._seconds, {}
            return seconds

    def take_notes(self) -> tuple[Note, ...]:
        """Warnings since the last call."""
        with self._changed:
            notes, self._notes = tuple(self._notes), []
            return notes

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the decode pool is closed")

    def _take(self) -> Event | None:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._closed:
                    raise ValueError("the decode pool was closed while a shard was being streamed")
                event = self._queue.take()
                if event is not None or self._queue.at_end:
                    break
                self._changed.wait()
        self._inbox.put(self._nothing)  # there is room now
        return event

    # ---------------------------------------------------------------- the thread

    def _nothing(self) -> None:
        """Wakes the thread."""

    def _work(self) -> None:
        next_look = time.monotonic() + _TICK_SECONDS
        try:
            while True:
                if time.monotonic() >= next_look:
                    self._look_at_all()
                    next_look = time.monotonic() + _TICK_SECONDS
                try:
                    happened = self._inbox.get(timeout=max(0.0, next_look - time.monotonic()))
                except queue.Empty:
                    continue
                if happened is None:
                    return
                happened()
                self._ask_all()
        except BaseException as e:  # noqa: BLE001 - carried to the thread that reads
            with self._changed:
                self._error = e
                self._changed.notify_all()

    def _ask_all(self) -> None:
        with self._changed:
            calls = self._queue.calls()
        for number, call in calls:
            self._ask(self._slots[number], call)

    def _ask(self, slot: _Slot, call: DecodeCall) -> None:
        if not slot.open_calls:
            slot.beat_at = time.monotonic()
        slot.open_calls += 1
        future = slot.decoder.take(call)
        future.add_done_callback(lambda f: self._inbox.put(lambda: self._answered(slot, call, f)))

    def _answered(self, slot: _Slot, call: DecodeCall, future: Future[Chunk]) -> None:
        arrived_at = time.time()
        slot.open_calls -= 1
        error = future.exception()
        if error is not None:
            self._raise_ours(error)
            self._lost(slot, error)
            return
        chunk = future.result()
        slot.beat_at, slot.resident_before = time.monotonic(), chunk.resident_bytes
        with self._changed:
            self._spend("read", chunk.read_seconds)
            self._spend("decode", chunk.decode_seconds)
            self._spend("transfer", max(0.0, arrived_at - chunk.finished_at))
            self._notes += chunk.notes
            self._queue.arrived(call.number, chunk.events)
            self._changed.notify_all()
        if slot.doomed is not None and not slot.open_calls:  # no call is left to say that it is lost
            self._lost(slot, RuntimeError("it was killed"))

    def _raise_ours(self, error: BaseException) -> None:
        """Raise what a decoder raised on purpose (Ray wraps it): no video and no other decoder can help it."""
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, LocumError):
            raise cause

    def _spend(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    # ---------------------------------------------------------------- starting, watching, ending

    def _start(self, bundle: int) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        slot = self._slots[number] = _Slot(number, bundle, self._make(bundle))
        slot.decoder.hello().add_done_callback(lambda f: self._inbox.put(lambda: self._greeted(slot, f)))

    def _greeted(self, slot: _Slot, future: Future[Hello]) -> None:
        if slot.number not in self._slots:
            return
        error = future.exception()
        if error is not None:
            del self._slots[slot.number]
            slot.decoder.kill(None)
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise RetryableError(f"decode actors do not start: {_first_line(error)}") from error
            self._start(slot.bundle)
            return
        self._failed_starts = 0
        slot.hello, slot.beat_at = future.result(), time.monotonic()
        with self._changed:
            self._queue.joined(slot.number)

    def _lost(self, slot: _Slot, error: BaseException) -> None:
        """A decoder died, by itself or by our hand; its other calls bring the same news and find it gone."""
        if self._slots.pop(slot.number, None) is None:
            return
        with self._changed:
            uri = self._queue.working_on(slot.number)
        words = self._last_words(slot)
        death = slot.doomed or _death(error, words)
        of_it = about(error=death.error, uri=scrubbed(uri or ""))
        text = "a decode actor ended (%s) while it read %s: %s"
        log.warning(text, death.error, scrubbed(uri or "nothing"), death.message, extra=of_it)
        with self._changed:
            self._queue.lost(slot.number, death)
            self._changed.notify_all()
        if not self._closed:
            slot.decoder.kill(None)
            self._start(slot.bundle)

    def _last_words(self, slot: _Slot) -> str | None:
        """They may have to come from another node; what the others say meanwhile is not held against them."""
        if slot.hello is None:
            return ""
        asked_at = time.monotonic()
        words = slot.decoder.last_words(slot.hello)
        for other in self._slots.values():
            other.beat_at += time.monotonic() - asked_at
        return words

    def _look_at_all(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots.values()):
            if slot.hello is None or slot.doomed is not None:
                continue
            self._ask_health(slot, now)
            if not slot.open_calls:
                continue
            death = self._look(slot, slot.hello, now)
            if death is not None:
                slot.doomed = death
                slot.decoder.kill(slot.hello)  # its open calls fail now, which says that it is lost

    def _look(self, slot: _Slot, hello: Hello, now: float) -> Death | None:
        """Why a decoder has to go, if it has."""
        s = self._settings
        resident = max(slot.decoder.resident_bytes(hello), slot.resident)
        if resident > s.max_decoder_bytes:
            was = slot.resident_before
            text = f"it held {resident >> 20} MiB, {s.max_decoder_bytes >> 20} MiB are allowed"
            return Death("DecoderSwelled", text, blame=was < s.max_decoder_bytes // 2)
        silent = now - slot.beat_at
        if silent > s.stall_seconds * (_PATIENCE_WITH_STORAGE if slot.doing else 1):
            mute = slot.asked_health_at is not None and now - slot.asked_health_at > min(
                s.stall_seconds / 2, 10.0
            )
            how = "and it does not answer" if mute else f"waiting for {slot.doing or 'its decoder'}"
            return Death("DecoderHung", f"no progress for {silent:.0f} s, {how}", permanent=not slot.doing)
        return None

    def _ask_health(self, slot: _Slot, now: float) -> None:
        if slot.asked_health_at is None:
            slot.asked_health_at = now
            slot.decoder.health().add_done_callback(lambda f: self._inbox.put(lambda: self._seen(slot, f)))

    def _seen(self, slot: _Slot, future: Future[Health]) -> None:
        slot.asked_health_at = None
        error = future.exception()
        if error is not None:
            if not slot.open_calls:  # else those say so too
                self._lost(slot, error)
            return
        health = future.result()
        if health.beats != slot.beats:
            slot.beats, slot.beat_at = health.beats, time.monotonic()
        slot.doing = health.doing
        slot.resident = health.resident_bytes


def _death(error: BaseException, words: str | None) -> Death:
    """A decoder that ended without our doing: by a signal of its own making, by another's hand, or with its node."""
    if words:
        return Death("DecoderCrashed", words)
    if words is None:
        return Death(_KILLED, "its node is gone", permanent=False, blame=False)
    return Death(_KILLED, f"killed from outside, or out of memory ({_first_line(error)})", permanent=False)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((line for line in lines if "exit detail" in line), None)
    found = detail or (lines[0] if lines else type(error).__name__)
    return found.rpartition("exit detail: ")[2].partition(" Some common causes")[0]
