"""RayRunner: the schedule's actions applied to Ray actors, and their answers fed back to it.

The driver speaks in shards, never in frames: a shard out, a receipt back, a word to commit. Everything that comes
from Ray arrives in one inbox and is handled by one thread, so there is no lock here.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.decode_pool import PoolSettings
from cluster.schedule import Action, Assign, Commit, Schedule
from cluster.session import Session, address_of, connect, num_cores, num_gpus
from cluster.sizing import Node, Size, choose, shortage
from cluster.worker import WorkerSettings, actor_class
from cluster.worker_calls import Computed, Outcome, Raised, Ready, Settled, Skipped, Status
from pipeline.admission import Admission
from pipeline.frames import FrameRequest
from pipeline.runner import (
    MAX_FAILED_IN_A_ROW,
    OnProgress,
    Progress,
    Receipt,
    RunSettings,
    RunSummary,
    pending_clips,
)
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import LOCAL, RayOptions
from schemas.errors import RetryableError, SettingsError
from schemas.shard import ShardKey

log = logging.getLogger("locum.ray")

_TICK_SECONDS = 0.5
_STATUS_SECONDS = 2.0
_MAX_FAILED_STARTS = 3
_LEAVE_SECONDS = 5.0
_STORE_MARGIN = 1.5
_STORE_FLOOR = 100 << 20
_WORKER_BYTES = 0.7e9
"""About what a process holds that has loaded torch and a small teacher."""
_SAY_STALL_SECONDS = 30.0


class ShardError(RuntimeError):
    """Shard after shard fails with an exception; the message holds the last one's trace."""


class RayRunner:
    """A `pipeline.runner.Runner` on Ray. Connects, or starts a Ray of its own, when first there is work.

    Close it, or use it as a context: what it started goes away then.
    """

    def __init__(self, options: RayOptions = RayOptions(), *, max_attempts: int = 3) -> None:
        self._options, self._max_attempts = options, max_attempts
        self._stack = ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> RayRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """End the session, and the Ray that was started for it."""
        self.__exit__(None, None, None)

    def run(
        self,
        task: Task,
        store: ShardStore,
        settings: RunSettings = RunSettings(),
        on_progress: OnProgress | None = None,
    ) -> RunSummary:
        """See `pipeline.runner.Runner`.

        Raises
        ------
        SettingsError
            If the cluster cannot hold the least number of workers; found before anything is started.
        RetryableError
            If workers or decode actors do not start, or do not come in time.
        ShardError
            If several shards after one another end in an exception.
        """
        pending = store.pending()
        if not pending:
            return RunSummary()
        session = self._connected(task)
        decodes = isinstance(task.request, FrameRequest)
        size = self._size(session.nodes(), _device(task), decodes=decodes)
        log.info("%d to %d workers, each %s", size.least, size.most, size.shape)
        state = _Run(
            session, size, self._options, self._max_attempts, task, store, settings, on_progress, pending
        )
        try:
            return state.run()
        finally:
            state.close()

    def _connected(self, task: Task) -> Session:
        """The session, opened with the first work. What cannot fit on this machine is refused before Ray is started."""
        if self._session is None:
            store_bytes = _STORE_FLOOR
            if address_of(self._options) == LOCAL:
                here = [Node(num_cores(), num_gpus(), float("inf"), float("inf"))]
                size = self._size(here, _device(task), decodes=True)
                places = max(
                    size.least, min(size.most, math.floor(num_cores() / size.shape.total_cpus + 1e-6))
                )
                store_bytes += int(places * (self._options.buffer_mb << 20) * _STORE_MARGIN)
            self._session = self._stack.enter_context(connect(self._options, object_store_bytes=store_bytes))
        return self._session

    def _size(self, nodes: list[Node], device: str, *, decodes: bool) -> Size:
        size = choose(nodes, self._options, device=device, decodes=decodes)
        missing = shortage(
            nodes,
            size,
            buffer_bytes=self._options.buffer_mb << 20 if decodes else 0,
            worker_bytes=_WORKER_BYTES,
        )
        if missing:
            raise SettingsError(
                f"the work does not fit: {missing}. See --workers, --cpus-per-worker and the flags beside them"
            )
        return size


def _device(task: Task) -> str:
    """The device that a task asks for; tasks that do not say run on the CPU."""
    return str(getattr(task, "device", "cpu"))


@dataclass(eq=False)
class _Worker:
    """One worker, from the claim of its place on."""

    number: int
    group: PlacementGroup
    asked_at: float
    actor: Any = None
    ready: Ready | None = None
    status: Status | None = None
    moved_at: float = field(default_factory=time.monotonic)
    status_asked: bool = False


class _Run:
    """One run of `RayRunner`."""

    def __init__(
        self,
        session: Session,
        size: Size,
        options: RayOptions,
        max_attempts: int,
        task: Task,
        store: ShardStore,
        settings: RunSettings,
        on_progress: OnProgress | None,
        pending: list[ShardKey],
    ) -> None:
        self._session, self._size, self._options = session, size, options
        self._task, self._store, self._settings, self._on_progress = task, store, settings, on_progress
        self._schedule = Schedule(pending, Admission(settings.breaker), max_attempts=options.shard_attempts)
        self._worker_settings = WorkerSettings(
            PoolSettings(
                num_decoders=size.shape.decoders,
                max_bytes=options.buffer_mb << 20,
                max_attempts=max_attempts,
                stall_seconds=options.stall_seconds,
                max_decoder_bytes=options.decoder_memory_mb << 20,
                decoder_name=task.request.decode.backend if isinstance(task.request, FrameRequest) else "",
            ),
            cpus_per_decoder=size.shape.cpus_per_decoder,
            folder=os.getcwd(),
        )
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._next_number = 0
        self._failed_starts = 0
        self._receipts: dict[ShardKey, Receipt] = {}
        self._summary = RunSummary()
        self._shards_total, self._clips_total = len(pending), pending_clips(store, pending)
        self._clips_done = 0
        self._stopped = False
        self._started = self._waiting_since = self._moved_at = self._said_at = time.monotonic()
        self._next_status = 0.0

    # ---------------------------------------------------------------- the loop

    def run(self) -> RunSummary:
        while not self._schedule.done:
            self._grow()
            try:
                self._inbox.get(timeout=_TICK_SECONDS)()
            except queue.Empty:
                self._look()
            if time.monotonic() >= self._next_status:
                self._look()
        s = self._summary
        s.failed_shards.update(self._schedule.failed)
        s.out_of_time = self._schedule.out_of_time
        s.seconds = time.monotonic() - self._started
        return s

    def close(self) -> None:
        """Stop all workers; their decode actors go with them."""
        leaving = [w.actor.close.remote() for w in self._workers.values() if w.ready is not None]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for worker in list(self._workers.values()):
            self._remove(worker)

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            worker = self._workers[action.worker]
            if isinstance(action, Assign):
                self._assign(worker, action.key)
            elif isinstance(action, Commit):
                self._ask(worker, worker.actor.commit.remote(action.key), self._settled)
            else:
                self._recall(worker, action.key)

    def _recall(self, worker: _Worker, key: ShardKey) -> None:
        self._ask(worker, worker.actor.recall.remote(key), lambda w, given: self._recalled(w, key, given))

    def _assign(self, worker: _Worker, key: ShardKey) -> None:
        shard = ray.put(self._store.shard(key))
        if len(self._schedule.leases(worker.number)) > 1:
            worker.actor.announce.remote(shard)
        self._ask(worker, worker.actor.run.remote(shard), lambda w, outcome: self._ended(w, key, outcome))

    def _ask(self, worker: _Worker, ref: Any, then: Callable[[_Worker, Any], None]) -> None:
        """Call ``then`` from the loop when the answer is there; where it will not come, the worker is lost."""

        def arrived(future: Future[Any]) -> None:
            self._inbox.put(lambda: self._answered(worker, future, then))

        ref.future().add_done_callback(arrived)

    def _answered(self, worker: _Worker, future: Future[Any], then: Callable[[_Worker, Any], None]) -> None:
        if worker.number not in self._workers:
            return
        error = future.exception()
        if error is None:
            then(worker, future.result())
        elif isinstance(error, ray.exceptions.RayTaskError):  # of ours: workers catch what tasks raise
            raise error
        else:
            self._lost(worker, error)

    # ---------------------------------------------------------------- what workers answer

    def _ended(self, worker: _Worker, key: ShardKey, outcome: Outcome) -> None:
        self._moved(worker)
        worker.status = None
        if isinstance(outcome, Computed):
            self._note(outcome.notes)
            receipt = self._receipts[key] = outcome.receipt
            self._do(self._schedule.computed(worker.number, key, receipt.videos, receipt.failures))
        elif isinstance(outcome, Skipped):
            if not outcome.recalled:  # else the recall was answered long since
                self._lost_race(key)
                self._do(self._schedule.skipped(worker.number, key, recalled=False))
        else:
            self._raised(outcome)
            self._do(self._schedule.raised(worker.number, key, outcome.error))
            if self._schedule.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                raise ShardError(f"{MAX_FAILED_IN_A_ROW} shards in a row failed; the last:\n{outcome.trace}")

    def _recalled(self, worker: _Worker, key: ShardKey, given_back: bool) -> None:
        if given_back:
            self._do(self._schedule.skipped(worker.number, key, recalled=True))

    def _settled(self, worker: _Worker, settled: Settled) -> None:
        self._moved(worker)
        receipt = self._receipts.pop(settled.key)
        if settled.error is not None:
            self._raised(settled.error)
            raise ShardError(f"shard {settled.key} cannot be committed:\n{settled.error.trace}")
        if settled.lost:
            self._lost_race(settled.key)
        else:
            self._summary.add(receipt)
            self._summary.spend("write", settled.seconds)
            self._clips_done += receipt.planned
        self._do(self._schedule.committed(worker.number, settled.key))
        self._tick()

    def _raised(self, raised: Raised) -> None:
        if raised.fatal is not None:
            raise raised.fatal
        log.warning("shard %s: %s\n%s", raised.key, raised.error, raised.trace)

    def _lost_race(self, key: ShardKey) -> None:
        self._summary.lost_races += 1
        log.info("shard %s was committed by another process", key)

    def _note(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            log.warning("%s", note)

    def _moved(self, worker: _Worker) -> None:
        worker.moved_at = self._moved_at = time.monotonic()

    # ---------------------------------------------------------------- workers come and go

    def _grow(self) -> None:
        """Claim places up to what the size and the pending shards ask for."""
        coming = sum(1 for w in self._workers.values() if w.ready is None)
        wanted = min(self._size.most - len(self._workers), self._schedule.num_waiting - coming)
        for _ in range(wanted):
            number, self._next_number = self._next_number, self._next_number + 1
            group = placement_group(self._size.shape.bundles, strategy="PACK")
            worker = self._workers[number] = _Worker(number, group, time.monotonic())
            self._ask(worker, group.ready(), self._placed)

    def _placed(self, worker: _Worker, _: object) -> None:
        shape = self._size.shape
        strategy = PlacementGroupSchedulingStrategy(worker.group, placement_group_bundle_index=0)
        worker.actor = (
            actor_class()
            .options(
                num_cpus=shape.cpus,
                num_gpus=shape.gpus,
                scheduling_strategy=strategy,
                enable_task_events=False,
            )
            .remote(self._task, self._store, self._worker_settings)
        )
        self._ask(worker, worker.actor.start.remote(), self._joined)

    def _joined(self, worker: _Worker, ready: Ready | Raised) -> None:
        if isinstance(ready, Raised):
            if ready.fatal is not None:
                raise ready.fatal
            raise ShardError(f"the task does not start on a worker:\n{ready.trace}")
        worker.ready, self._failed_starts = ready, 0
        self._moved(worker)
        self._note(ready.notes)
        self._summary.spend("start", ready.seconds)
        log.info("worker %d is ready after %.1f s", worker.number, time.monotonic() - worker.asked_at)
        self._do(self._schedule.joined(worker.number))

    def _lost(self, worker: _Worker, error: BaseException) -> None:
        cause = " ".join(str(error).split())[:500]
        was_ready, node = worker.ready is not None, worker.ready.node_id if worker.ready else ""
        self._remove(worker)
        if not was_ready:
            self._failed_starts += 1
            log.warning("a worker died while it started: %s", cause)
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise RetryableError(f"workers do not start: {cause}") from error
            return
        blame = node in self._session.living()
        holds = ", ".join(map(str, self._schedule.leases(worker.number))) or "nothing"
        log.warning("worker %d died holding %s: %s", worker.number, holds, cause)
        actions = self._schedule.lost(worker.number, cause, blame=blame)
        self._receipts = {k: r for k, r in self._receipts.items() if self._schedule.is_computed(k)}
        self._do(actions)

    def _remove(self, worker: _Worker) -> None:
        self._workers.pop(worker.number, None)
        if worker.actor is not None:
            ray.kill(worker.actor)
        remove_placement_group(worker.group)

    # ---------------------------------------------------------------- time, progress and stalls

    def _look(self) -> None:
        now = time.monotonic()
        self._next_status = now + max(_STATUS_SECONDS, 0.02 * len(self._workers))
        limit = self._settings.max_seconds
        if limit is not None and not self._stopped and now - self._started >= limit:
            self._stopped = True
            self._do(self._schedule.stop())
        for worker in list(self._workers.values()):
            self._watch(worker, now)
        self._require_workers(now)
        self._say_stall(now)
        self._tick()

    def _watch(self, worker: _Worker, now: float) -> None:
        if worker.ready is None:
            return
        if not worker.status_asked:
            worker.status_asked = True
            self._ask(worker, worker.actor.status.remote(), self._told)
        idle = not self._schedule.leases(worker.number)
        if idle:
            worker.moved_at = now
        silent = now - worker.moved_at
        if silent > self._options.worker_stall_seconds:
            self._lost(worker, TimeoutError(f"no progress for {silent:.0f} s; it was killed"))

    def _told(self, worker: _Worker, status: Status) -> None:
        worker.status_asked = False
        self._note(status.notes)
        before, worker.status = worker.status, status
        if before is None or (before.key, before.clips) != (status.key, status.clips):
            self._moved(worker)

    def _require_workers(self, now: float) -> None:
        """Give up where the least number of workers does not come, and none is at work meanwhile."""
        ready = sum(1 for w in self._workers.values() if w.ready is not None)
        if ready or any(w.actor is not None for w in self._workers.values()):
            self._waiting_since = now
        elif now - self._waiting_since > self._options.wait_seconds:
            raise RetryableError(
                f"no worker found a place within {self._options.wait_seconds:g} s: {self._size.shape} each is wanted, "
                f"and what is free is {_free()}"
            )

    def _say_stall(self, now: float) -> None:
        if now - max(self._moved_at, self._said_at) < _SAY_STALL_SECONDS:
            return
        self._said_at = now
        for line in self._waits(now):
            log.warning("nothing has moved for %.0f s: %s", now - self._moved_at, line)

    def _waits(self, now: float) -> list[str]:
        """What is being waited for, in words."""
        placing = [w for w in self._workers.values() if w.actor is None]
        starting = [w for w in self._workers.values() if w.actor is not None and w.ready is None]
        lines = []
        if placing:
            lines.append(
                f"{len(placing)} workers wait for a place ({self._size.shape} each); free is {_free()}"
            )
        if starting:
            lines.append(f"{len(starting)} workers load their models")
        for w in self._workers.values():
            if w.ready is not None and self._schedule.leases(w.number):
                doing = w.status.waits_for if w.status and w.status.waits_for else "its model"
                key = self._schedule.leases(w.number)[0]
                lines.append(f"worker {w.number}, shard {key}, waits for {doing} ({now - w.moved_at:.0f} s)")
        return lines

    def _tick(self) -> None:
        if self._on_progress is None:
            return
        under_way = sum(r.planned for r in self._receipts.values())
        under_way += sum(w.status.clips for w in self._workers.values() if w.status and w.status.key)
        self._on_progress(
            Progress(
                shards_done=self._summary.shards,
                shards_total=self._shards_total,
                clips_done=min(self._clips_done + under_way, self._clips_total),
                clips_total=self._clips_total,
                quarantined=self._summary.quarantined_videos,
                seconds=time.monotonic() - self._started,
            )
        )


def _free() -> str:
    found = ray.available_resources()
    return f"{found.get('CPU', 0.0):g} CPU, {found.get('GPU', 0.0):g} GPU, {found.get('memory', 0.0) / 1e9:.1f} GB"
