"""One run on Ray: the schedule's actions applied to workers, and their answers fed back to it.

The driver speaks in shards, never in frames: a shard out, a receipt back, a word to commit. Everything that comes
from Ray arrives in one inbox and is handled by one thread, so there is no lock here.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.decode_pool import PoolSettings
from cluster.place import Place, stalled
from cluster.schedule import Action, Assign, Commit, Schedule
from cluster.session import Session
from cluster.sizing import Size
from cluster.tally import Tally
from cluster.waiting import Waiting
from cluster.worker import WorkerSettings, actor_class
from cluster.worker_calls import Computed, Outcome, Raised, Ready, Settled, Skipped, Status, software
from pipeline.admission import Admission
from pipeline.frames import FrameRequest
from pipeline.runner import (
    MAX_FAILED_IN_A_ROW,
    OnProgress,
    RunSettings,
    RunSummary,
    pending_clips,
)
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import RayOptions
from schemas.errors import RetryableError, SettingsError
from schemas.shard import ShardKey

log = logging.getLogger("locum.ray")

_TICK_SECONDS = 0.5
_STATUS_SECONDS = 2.0
_MAX_FAILED_STARTS = 3
_LEAVE_SECONDS = 5.0


class ShardError(RuntimeError):
    """Shard after shard fails with an exception; the message holds the last one's trace."""


class Run:
    """One run of `cluster.runner.RayRunner`. ``task`` is as workers of this ``size`` run it."""

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
        self._places: dict[int, Place] = {}
        self._numbers, self._leases = itertools.count(), itertools.count(1)
        self._least = min(size.least, len(pending))
        self._begun = False
        self._failed_starts = self._deaths_in_a_row = 0
        self._tally = Tally(len(pending), pending_clips(store, pending))
        self._stopped = False
        self._started = self._moved_at = now = time.monotonic()
        self._waiting = Waiting(self._least, size.shape, options.wait_seconds, since=now, said_at=now)
        self._next_look = 0.0

    # ---------------------------------------------------------------- the loop

    def run(self) -> RunSummary:
        """Until nothing is left that a worker could do. See `pipeline.runner.Runner` for what is raised."""
        while not self._schedule.done:
            self._grow()
            try:
                self._inbox.get(timeout=_TICK_SECONDS)()
            except queue.Empty:
                self._look()
            if time.monotonic() >= self._next_look:
                self._look()
        s = self._tally.summary
        s.failed_shards.update(self._schedule.failed)
        s.out_of_time = self._schedule.out_of_time
        s.seconds = time.monotonic() - self._started
        return s

    def close(self) -> None:
        """Stop all workers; their decode actors go with them."""
        leaving = [p.actor.close.remote() for p in self._places.values() if p.ready is not None]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for place in list(self._places.values()):
            self._remove(place)

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            place = self._places[action.worker]
            if isinstance(action, Assign):
                self._assign(place, action.key)
            elif isinstance(action, Commit):
                place.committing.add(action.key)
                self._ask(place, place.actor.commit.remote(action.key), self._settled)
            else:
                self._recall(place, action.key)

    def _assign(self, place: Place, key: ShardKey) -> None:
        lease = place.leases[key] = next(self._leases)
        shard = ray.put(self._store.shard(key))
        if len(self._schedule.leases(place.number)) > 1:
            place.actor.announce.remote(shard)
        self._ask(
            place, place.actor.run.remote(shard, lease), lambda p, outcome: self._ended(p, key, outcome)
        )

    def _recall(self, place: Place, key: ShardKey) -> None:
        recall = place.actor.recall.remote(key, place.leases[key])
        self._ask(place, recall, lambda p, given_back: self._recalled(p, key, given_back))

    def _ask(self, place: Place, ref: Any, then: Callable[[Place, Any], None]) -> None:
        """Call ``then`` from the loop when the answer is there; where it will not come, the worker is lost."""

        def arrived(future: Future[Any]) -> None:
            self._inbox.put(lambda: self._answered(place, future, then))

        ref.future().add_done_callback(arrived)

    def _answered(self, place: Place, future: Future[Any], then: Callable[[Place, Any], None]) -> None:
        if place.number not in self._places:
            return
        error = future.exception()
        if error is None:
            then(place, future.result())
        elif isinstance(error, ray.exceptions.RayTaskError):  # of ours: workers catch what tasks raise
            raise error
        else:
            self._lost(place, error)

    # ---------------------------------------------------------------- what workers answer

    def _ended(self, place: Place, key: ShardKey, outcome: Outcome) -> None:
        self._moved(place)
        place.status = None
        if isinstance(outcome, Computed):
            self._deaths_in_a_row = 0
            self._note(outcome.notes)
            receipt = outcome.receipt
            self._tally.computed(receipt)
            self._do(self._schedule.computed(place.number, key, receipt.videos, receipt.failures))
        elif isinstance(outcome, Skipped):
            if not outcome.recalled:  # else the recall was answered long since
                self._tally.lost_race(key)
                self._do(self._schedule.skipped(place.number, key, recalled=False))
        elif isinstance(
            outcome.fatal, RetryableError
        ):  # of this worker's surroundings: another may fare better
            self._lost(place, outcome.fatal, blame=False)
        else:
            self._give_up(outcome, lambda: self._schedule.raised(place.number, key, outcome.error))

    def _recalled(self, place: Place, key: ShardKey, given_back: bool) -> None:
        if given_back:
            self._do(self._schedule.skipped(place.number, key, recalled=True))

    def _settled(self, place: Place, settled: Settled) -> None:
        self._moved(place)
        key = settled.key
        place.committing.discard(key)
        if settled.error is not None:
            error = settled.error
            self._tally.not_committed(key)
            self._give_up(error, lambda: self._schedule.not_committed(place.number, key, error.error))
            return
        if settled.lost:
            self._tally.lost_race(key)
        else:
            self._tally.committed(key, settled.seconds)
        self._do(self._schedule.committed(place.number, key, lost=settled.lost))
        self._tick()

    def _give_up(self, raised: Raised, then: Callable[[], list[Action]]) -> None:
        """A shard ended in an exception: the run goes on, unless no other shard would fare better."""
        if raised.fatal is not None:
            raise raised.fatal
        log.warning("shard %s: %s\n%s", raised.key, raised.error, raised.trace)
        self._do(then())
        if self._schedule.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise ShardError(f"{MAX_FAILED_IN_A_ROW} shards in a row failed; the last:\n{raised.trace}")

    def _note(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            log.warning("%s", note)

    def _moved(self, place: Place) -> None:
        place.moved_at = self._moved_at = time.monotonic()

    # ---------------------------------------------------------------- workers come and go

    def _grow(self) -> None:
        """Claim places up to what the size and the pending shards ask for."""
        coming = sum(1 for p in self._places.values() if not p.joined)
        wanted = min(self._size.most - len(self._places), self._schedule.num_waiting - coming)
        for _ in range(wanted):
            group = placement_group(self._size.shape.bundles, strategy="PACK")
            place = Place(next(self._numbers), group)
            self._places[place.number] = place
            self._ask(place, group.ready(), self._placed)

    def _placed(self, place: Place, _: object) -> None:
        shape = self._size.shape
        strategy = PlacementGroupSchedulingStrategy(place.group, placement_group_bundle_index=0)
        place.actor = (
            actor_class()
            .options(
                num_cpus=shape.bundles[0]["CPU"],
                num_gpus=shape.gpus,
                scheduling_strategy=strategy,
                enable_task_events=False,
            )
            .remote(self._task, self._store, self._worker_settings)
        )
        self._moved(place)
        self._ask(place, place.actor.start.remote(), self._started_up)

    def _started_up(self, place: Place, ready: Ready | Raised) -> None:
        if isinstance(ready, Raised):
            if ready.fatal is not None:
                raise ready.fatal
            raise ShardError(f"the task does not start on a worker:\n{ready.trace}")
        if ready.software != software():
            raise SettingsError(
                f"node {ready.node_id} has {ready.software}, the driver has {software()}: install the same on all nodes"
            )
        place.ready, self._failed_starts = ready, 0
        self._moved(place)
        self._note(ready.notes)
        self._tally.summary.spend("start", ready.seconds)
        log.info("worker %d is ready after %.1f s", place.number, time.monotonic() - place.asked_at)
        there = [p for p in self._places.values() if p.ready is not None]
        if self._begun or len(there) >= self._least:
            self._begun = True
            for each in there:
                self._join(each)

    def _join(self, place: Place) -> None:
        if not place.joined:
            place.joined = True
            self._do(self._schedule.joined(place.number))

    def _lost(self, place: Place, error: BaseException, *, blame: bool = True) -> None:
        cause = " ".join(str(error).split())[:500]
        self._remove(place)
        self._deaths_in_a_row += 1
        if place.ready is None:
            self._not_started(cause, error)
            return
        blame = blame and place.ready.node_id in self._session.living()
        holds = ", ".join(map(str, self._schedule.leases(place.number))) or "nothing"
        log.warning("worker %d died holding %s: %s", place.number, holds, cause)
        if place.joined:
            actions = self._schedule.lost(place.number, cause, blame=blame)
            self._tally.keep(self._schedule.is_computed)
            self._do(actions)
        if self._deaths_in_a_row >= max(4 * self._options.shard_attempts, 2 * len(self._places)):
            raise RetryableError(
                f"{self._deaths_in_a_row} workers died and none computed a shard between; the last: {cause}"
            ) from error

    def _not_started(self, cause: str, error: BaseException) -> None:
        self._failed_starts += 1
        log.warning("a worker died while it started: %s", cause)
        if "ModuleNotFoundError" in cause:
            raise SettingsError(f"Locum is not installed on all nodes of the cluster: {cause}") from error
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise RetryableError(f"workers do not start: {cause}") from error

    def _remove(self, place: Place) -> None:
        self._places.pop(place.number, None)
        if place.actor is not None:
            ray.kill(place.actor)
        remove_placement_group(place.group)

    # ---------------------------------------------------------------- time, progress and stalls

    def _look(self) -> None:
        now = time.monotonic()
        self._next_look = now + max(_STATUS_SECONDS, 0.02 * len(self._places))
        limit = self._settings.max_seconds
        if limit is not None and not self._stopped and now - self._started >= limit:
            self._stopped = True
            self._do(self._schedule.stop())
        for place in list(self._places.values()):
            self._watch(place, now)
        self._say_what_is_waited_for(now)
        self._tick()

    def _watch(self, place: Place, now: float) -> None:
        if place.ready is not None and not place.status_asked:
            place.status_asked = True
            self._ask(place, place.actor.status.remote(), self._told)
        if not self._has_work(place):
            place.moved_at = now
        why = stalled(place, now, self._options.worker_stall_seconds)
        if why:
            self._lost(place, TimeoutError(why))

    def _has_work(self, place: Place) -> bool:
        starting = place.actor is not None and place.ready is None
        return starting or bool(self._schedule.leases(place.number)) or bool(place.committing)

    def _told(self, place: Place, status: Status) -> None:
        place.status_asked = False
        self._note(status.notes)
        before, place.status = place.status, status
        if before is None or (before.key, before.clips) != (status.key, status.clips):
            self._moved(place)

    def _say_what_is_waited_for(self, now: float) -> None:
        places = list(self._places.values())
        why = self._waiting.too_long(sum(p.actor is not None for p in places), self._begun, now)
        if why:
            raise RetryableError(why)
        leases = {p.number: self._schedule.leases(p.number) for p in places}
        for line in self._waiting.stall(places, leases, self._moved_at, now):
            log.warning("%s", line)
        if text := self._waiting.unplaced(places, now):
            log.info("%s", text)

    def _tick(self) -> None:
        if self._on_progress is None:
            return
        under_way = sum(p.status.clips for p in self._places.values() if p.status and p.status.key)
        self._on_progress(self._tally.progress(under_way, time.monotonic() - self._started))
