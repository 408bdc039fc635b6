"""The worker actor: holds the models and runs a task, one shard at a time, over the frames of its decode pool.

Three threads: one computes, one commits, one answers at once (what to decode next, what to give back, how it goes).
A computed shard waits here until the driver says that it may be committed.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import ray

from cluster.decode_pool import DecodePool, PoolSettings
from cluster.decoders import RayDecoder
from cluster.groups import in_group
from cluster.notes import Note, Notes
from cluster.worker_calls import Computed, Outcome, Raised, Ready, Settled, Skipped, Status, software
from pipeline.counting import CountingFrames
from pipeline.frames import NoFrames
from pipeline.models.memory import keep_freed_memory
from pipeline.runner import Receipt
from pipeline.store.shard_store import ShardStore, Stamp
from pipeline.tasks.task import Task, TaskRun
from schemas.errors import LocumError, RetryableError, SettingsError
from schemas.shard import Shard, ShardKey, ShardResult

log = logging.getLogger("locum.worker")

_START_PAUSES = (2.0, 8.0, 32.0)


@dataclass(frozen=True)
class WorkerSettings:
    """All a worker needs to know besides its task and store."""

    pool: PoolSettings
    cpus_per_decoder: float
    folder: str


class Worker:
    """Made an actor by `actor_class`."""

    def __init__(self, task: Task, store: ShardStore, settings: WorkerSettings) -> None:
        self._task, self._store, self._settings = task, store, settings
        self._notes = Notes()
        self._notes.attach()
        self._lock = threading.Lock()
        self._recalled: set[int] = set()
        self._begun = 0
        self._computed: dict[ShardKey, tuple[Shard, ShardResult, Stamp]] = {}
        self._under_way: ShardKey | None = None
        self._clips = 0
        self._pool: DecodePool | None = None
        self._running: TaskRun | None = None
        self._announced: set[ShardKey] = set()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="locum-announce")

    # ---------------------------------------------------------------- computing

    def start(self) -> Ready | Raised:
        """Load the models, and start the decoders meanwhile."""
        started = time.perf_counter()
        keep_freed_memory()
        if Path(self._settings.folder).is_dir():
            os.chdir(self._settings.folder)  # factories and weights may be named by relative paths
        unseen = _caught(ShardKey(0, 0), lambda: _patiently(self._check_store))
        if unseen is not None:
            return unseen
        if self._task.request is not None:
            self._pool = DecodePool(self._make_decoder, self._settings.pool)
        running = _caught(ShardKey(0, 0), lambda: _patiently(self._task.start))
        if isinstance(running, Raised):
            return running
        self._running = running
        me = ray.get_runtime_context().get_node_id()
        return Ready(os.getpid(), me, time.perf_counter() - started, software(), self._take_notes())

    def _check_store(self) -> None:
        if not ShardStore.is_store(self._store.url):
            why = f"{self._store.url} cannot be seen from node {ray.util.get_node_ip_address()}"
            raise SettingsError(f"{why}: on several nodes the store must be where all of them reach it")

    def run(self, shard: Shard, lease: int) -> Outcome:
        """Compute a shard, unless it was recalled or is committed already. Later leases have higher numbers."""
        key = shard.key
        with self._lock:
            self._begun = lease
            self._announced.discard(key)
            if lease in self._recalled:
                self._recalled.discard(lease)
                return Skipped(key, recalled=True)
            self._under_way, self._clips = key, 0
        outcome = _caught(key, lambda: self._run(shard))
        self._under_way = None
        return outcome

    def _run(self, shard: Shard) -> Outcome:
        if self._is_committed(shard.key):
            return self._skip(shard.key)
        result = self._compute(shard)
        self._computed[shard.key] = (shard, result, Stamp.of_now())
        return Computed(Receipt.of(shard, result), self._take_notes())

    def _is_committed(self, key: ShardKey) -> bool:
        """By another process; where the storage does not say, no: the first commit will stand."""
        try:
            return self._store.is_committed(key)
        except RetryableError as e:
            log.warning("shard %s is computed, there or not: %s", key, e)
            return False

    def _skip(self, key: ShardKey) -> Skipped:
        if self._pool is not None:
            self._pool.forget(key)
        return Skipped(key, recalled=False)

    def _compute(self, shard: Shard) -> ShardResult:
        if self._running is None:
            raise ValueError("the worker was not started")
        result = self._running.run(shard, CountingFrames(self._pool or NoFrames(), self._count))
        seconds = dict(result.seconds)
        if self._pool is not None:
            seconds |= self._pool.take_seconds()
        return replace(result, seconds=seconds)

    def _count(self, clips: int) -> None:
        self._clips += clips

    def _make_decoder(self, bundle: int) -> RayDecoder:
        group = ray.util.get_current_placement_group()
        pool = self._settings.pool
        return RayDecoder(pool.max_attempts, self._settings.cpus_per_decoder, group, 1 + bundle)

    def _take_notes(self) -> tuple[Note, ...]:
        return self._notes.take() + (self._pool.take_notes() if self._pool is not None else ())

    # ---------------------------------------------------------------- committing

    @in_group("commit")
    def commit(self, key: ShardKey) -> Settled:
        """Write a computed shard. Its rows stay here where another attempt may help."""
        started = time.perf_counter()
        shard, result, stamp = self._computed[key]
        won = _caught(key, lambda: self._store.commit(shard, result, stamp))
        seconds = time.perf_counter() - started
        if not (isinstance(won, Raised) and isinstance(won.fatal, RetryableError)):
            del self._computed[key]
        return (
            Settled(key, False, seconds, won) if isinstance(won, Raised) else Settled(key, not won, seconds)
        )

    @in_group("commit")
    def drop(self, key: ShardKey) -> None:
        """Forget a shard that was computed in vain."""
        self._computed.pop(key, None)

    # ---------------------------------------------------------------- answering at once

    @in_group("control")
    def announce(self, shard: Shard) -> None:
        """This shard will be asked for: its decoding may begin when there is room."""
        with self._lock:
            self._announced.add(shard.key)
        self._ahead.submit(self._prefetch, shard)

    def _prefetch(self, shard: Shard) -> None:
        """In a thread of its own, for what is wanted of a shard may have to be read."""
        request = self._task.request
        if self._pool is None or request is None or self._running is None:
            return
        try:
            wanted = self._running.wanted(shard)
        except Exception as e:  # noqa: BLE001 - it is said when its turn comes
            log.debug("shard %s is not prefetched: %s", shard.key, e)
            return
        with self._lock:
            if shard.key in self._announced:
                self._pool.prefetch(wanted, request)

    @in_group("control")
    def recall(self, key: ShardKey, lease: int) -> bool:
        """Give a shard back; false where it has begun already."""
        with self._lock:
            if lease <= self._begun:
                return False
            self._recalled.add(lease)
            self._announced.discard(key)
        if self._pool is not None:
            self._pool.forget(key)
        return True

    @in_group("control")
    def status(self) -> Status:
        """How it goes."""
        waits_for = self._pool.waits_for if self._pool is not None and self._under_way else ""
        waiting = self._pool.waiting_bytes if self._pool is not None else 0
        return Status(self._under_way, self._clips, waits_for, self._take_notes(), waiting)

    @in_group("control")
    def close(self) -> None:
        """Kill the decoders; the worker is about to be stopped."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.close()


T = TypeVar("T")


def _patiently(work: Callable[[], T]) -> T:
    """What ``work`` returns, which reads of a storage that may be away for a moment."""
    for pause in _START_PAUSES:
        try:
            return work()
        except RetryableError as e:
            log.warning("a worker tries to start again in %.0f s: %s", pause, e)
            time.sleep(pause * random.uniform(0.5, 1.5))
    return work()


def _caught(key: ShardKey, work: Callable[[], T]) -> T | Raised:
    """What ``work`` returns, or its exception as a value: one bad shard must not end the others."""
    try:
        return work()
    except Exception as e:
        log.info("shard %s", key, exc_info=True)
        text, trace = f"{type(e).__name__}: {e}", "".join(traceback.format_exception(e))
        return Raised(key, text, trace, e if isinstance(e, LocumError) else None)


def actor_class() -> ray.actor.ActorClass[Worker]:
    """`Worker` as a Ray actor class; never restarted by Ray."""
    groups = {"commit": 1, "control": 1}
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(Worker)
