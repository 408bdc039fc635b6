"""One run on Ray: the schedule's actions applied to workers, and their answers fed back to it.

The driver speaks in shards, never in frames: a shard out, a receipt back, a word to commit. `cluster.crew` brings the
workers and what they say.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable

import ray

from cluster.crew import Crew, ShardError
from cluster.decode_pool import PoolSettings
from cluster.lately import Lately
from cluster.metrics import RunMetrics
from cluster.notes import Note
from cluster.pace import Pace, long_ones_first
from cluster.patience import Again, Patience
from cluster.place import Lease, Place
from cluster.schedule import Action, Assign, Commit, Drop, Schedule
from cluster.session import Session
from cluster.sizing import Size
from cluster.tally import Tally
from cluster.waiting import Waiting
from cluster.worker import WorkerSettings
from cluster.worker_calls import Computed, Outcome, Raised, Settled, Skipped
from pipeline.admission import Admission
from pipeline.frames import FrameRequest
from pipeline.logs import about
from pipeline.runner import (
    MAX_FAILED_IN_A_ROW,
    OnProgress,
    RunSettings,
    RunSummary,
    pending_clips,
    say_committed,
)
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import RayOptions
from schemas.errors import RetryableError
from schemas.shard import ShardKey

log = logging.getLogger("locum.ray")

_TICK_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_IN_FORCE_SECONDS = 10.0
"""So old may be what the driver knows of removed and amended videos; a commit looks itself."""


class Run:
    """One run of `cluster.runner.RayRunner`, and the foreman of its crew. ``task`` is as workers of this ``size`` run
    it."""

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
        self._store, self._settings, self._on_progress = store, settings, on_progress
        clips = pending_clips(store, pending)
        first = long_ones_first(pending, clips)
        self._schedule = Schedule(first, Admission(settings.breaker), max_attempts=options.shard_attempts)
        worker_settings = WorkerSettings(
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
        self._crew = Crew(session, size, options, task, store, worker_settings, self)
        self._leases = itertools.count(1)
        self._least = min(size.least, len(pending))
        self._begun = self._stopped = False
        self._pace = Pace()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._tally = Tally(len(pending), sum(clips))
        self._metrics = RunMetrics(store.url)
        self._in_force = Lately(store.in_force, _IN_FORCE_SECONDS)
        self._started = now = time.monotonic()
        self._patience = Patience()
        self._waiting = Waiting(self._least, size.shape, options.patience, since=now, said_at=now)
        self._next_look = self._ticked_at = 0.0

    # ---------------------------------------------------------------- the loop

    def run(self) -> RunSummary:
        """Until nothing is left that a worker could do. See `pipeline.runner.Runner` for what is raised."""
        while not self._schedule.done:
            self._crew.grow(self._schedule.num_waiting)
            if not self._crew.next_event(_TICK_SECONDS) or time.monotonic() >= self._next_look:
                self._look()
        s = self._tally.summary
        s.failed_shards.update(self._schedule.failed)
        s.out_of_time = self._schedule.out_of_time
        s.seconds = time.monotonic() - self._started
        s.spend("start", self._crew.start_seconds)
        return s

    def close(self) -> None:
        """Stop all workers; their decode actors go with them."""
        try:
            self._crew.close()
        finally:
            self._metrics.close()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            place = self._crew.places[action.worker]
            if isinstance(action, Assign):
                self._assign(place, action.key)
            elif isinstance(action, Commit):
                self._commit(place, action.key)
            elif isinstance(action, Drop):
                place.actor.drop.remote(action.key)
            else:
                self._recall(place, action.key)

    def _assign(self, place: Place, key: ShardKey) -> None:
        found = self._store.shard(key, self._in_force.get())
        lease = place.leases[key] = Lease(next(self._leases), found.num_planned)
        shard = ray.put(found)
        if self._schedule.leases(place.number)[:1] == (key,):
            place.began_at = time.monotonic()
        else:
            place.actor.announce.remote(shard)
        answer = place.actor.run.remote(shard, lease.number)
        self._crew.ask(place, answer, lambda p, outcome: self._ended(p, key, lease, outcome))

    def _commit(self, place: Place, key: ShardKey) -> None:
        place.committing[key] = place.committing.get(key, 0) + 1
        self._crew.ask(place, place.actor.commit.remote(key), self._settled)

    def _recall(self, place: Place, key: ShardKey) -> None:
        recall = place.actor.recall.remote(key, place.leases[key].number)
        self._crew.ask(place, recall, lambda p, given_back: self._recalled(p, key, given_back))

    # ---------------------------------------------------------------- what workers answer

    def _ended(self, place: Place, key: ShardKey, lease: Lease, outcome: Outcome) -> None:
        self._crew.moved(place)
        place.status = None
        took, place.began_at = time.monotonic() - place.began_at, time.monotonic()
        if place.leases.get(key) is lease:  # else it was given back, and then to the same worker again
            del place.leases[key]
        if isinstance(outcome, Computed):
            self._crew.worked()
            self.note(outcome.notes)
            receipt = outcome.receipt
            if self._schedule.is_wanted(place.number, key):
                self._pace.note(lease.clips, took)
                self._tally.computed(receipt)
            self._do(self._schedule.computed(place.number, key, receipt.videos, receipt.failures))
        elif isinstance(outcome, Skipped):
            if not outcome.recalled:  # else the recall was answered long since
                if not self._schedule.is_copied(key):
                    self._tally.lost_race(key)
                self._do(self._schedule.skipped(place.number, key, recalled=False))
        elif isinstance(outcome.fatal, RetryableError):  # of its surroundings: another may fare better
            self._crew.lose(place, outcome.fatal, blame=False)
        else:
            self._give_up(outcome, lambda: self._schedule.raised(place.number, key, outcome.error))

    def _recalled(self, place: Place, key: ShardKey, given_back: bool) -> None:
        if given_back:
            self._do(self._schedule.skipped(place.number, key, recalled=True))

    def _settled(self, place: Place, settled: Settled) -> None:
        self._crew.moved(place)
        key, error = settled.key, settled.error
        if error is not None and isinstance(error.fatal, RetryableError):
            self._commit_again(place, key, error.fatal)
            return
        del place.committing[key]
        if error is not None:
            self._tally.not_committed(key)
            self._give_up(error, lambda: self._schedule.not_committed(place.number, key, error.error))
            return
        self._patience.committed()
        if settled.lost:
            self._tally.lost_race(key)
        else:
            receipt = self._tally.committed(key, settled.seconds)
            self._metrics.committed(receipt)
            say_committed(log, receipt)
        self._do(self._schedule.committed(place.number, key, lost=settled.lost))
        if time.monotonic() - self._ticked_at >= _TICK_SECONDS or self._schedule.done:
            self._tick(time.monotonic())

    def _commit_again(self, place: Place, key: ShardKey, error: RetryableError) -> None:
        """The storage did not take a shard: see `cluster.patience`."""
        tried = place.committing[key]
        of_it = about(shard=key, worker=place.number)
        log.warning("shard %s was not written at attempt %d: %s", key, tried, error, extra=of_it)
        now = time.monotonic()
        verdict = self._patience.refused(key, tried, now)
        if isinstance(verdict, Again):
            self._later.append((now + verdict.seconds, lambda: self._commit_now(place, key)))
            return
        if verdict == "down":
            raise error
        del place.committing[key]
        if verdict == "elsewhere":
            self._crew.lose(place, error, blame=False)
            return
        self._tally.not_committed(key)
        place.actor.drop.remote(key)
        self._do(self._schedule.not_committed(place.number, key, f"{type(error).__name__}: {error}"))

    def _commit_now(self, place: Place, key: ShardKey) -> None:
        if place.number in self._crew.places:
            self._commit(place, key)

    def _give_up(self, raised: Raised, then: Callable[[], list[Action]]) -> None:
        """A shard ended in an exception: the run goes on, unless no other shard would fare better."""
        if raised.fatal is not None:
            raise raised.fatal
        log.warning("shard %s: %s\n%s", raised.key, raised.error, raised.trace, extra=about(shard=raised.key))
        self._do(then())
        if self._schedule.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise ShardError(f"{MAX_FAILED_IN_A_ROW} shards in a row failed; the last:\n{raised.trace}")

    # ---------------------------------------------------------------- what the crew says

    def ready(self, place: Place) -> None:
        """See `cluster.crew.Foreman`."""
        there = [place]
        if not self._begun:
            there = [p for p in self._crew.places.values() if p.ready is not None]
            self._begun = len(there) >= self._least
        if self._begun:
            for each in there:
                if not (each.joined or each.leaves):
                    each.joined = True
                    self._do(self._schedule.joined(each.number))

    def lost(self, place: Place, cause: str, *, blame: bool) -> None:
        """See `cluster.crew.Foreman`."""
        holds = ", ".join(map(str, self._schedule.leases(place.number))) or "nothing"
        how = "left" if place.leaves and not self.needs(place) else "died"
        of_it = about(worker=place.number, shards=holds)
        log.warning("worker %d %s holding %s: %s", place.number, how, holds, cause, extra=of_it)
        if place.joined:
            actions = self._schedule.lost(place.number, cause, blame=blame)
            self._tally.keep(self._schedule.is_computed)
            self._do(actions)

    def leaves(self, place: Place) -> None:
        """See `cluster.crew.Foreman`."""
        self._do(self._schedule.retire(place.number))

    def has_work(self, place: Place) -> bool:
        """See `cluster.crew.Foreman`."""
        return self._schedule.is_busy(place.number) or bool(place.committing)

    def needs(self, place: Place) -> bool:
        """See `cluster.crew.Foreman`."""
        return self._schedule.holds(place.number) or bool(place.committing)

    def note(self, notes: tuple[Note, ...]) -> None:
        """See `cluster.crew.Foreman`."""
        for note in notes:
            log.warning("%s", note.text, extra={"about": note.about})

    # ---------------------------------------------------------------- time, progress and stalls

    def _look(self) -> None:
        now = time.monotonic()
        self._next_look = now + _LOOK_SECONDS
        limit = self._settings.max_seconds
        if limit is not None and not self._stopped and now - self._started >= limit:
            self._stopped = True
            self._do(self._schedule.stop())
        due = [do for at, do in self._later if at <= now]
        self._later = [(at, do) for at, do in self._later if at > now]
        for do in due:
            do()
        self._crew.look(now, self._schedule.num_waiting)
        self._help_the_slow(now)
        self._say_what_is_waited_for(now)
        self._tick(now)
        self._metrics.show(self._schedule, self._crew, self._tally, now)

    def _help_the_slow(self, now: float) -> None:
        """Have what a worker is slow with computed by an idle one too, where nothing else is left to do."""
        if self._schedule.num_waiting:
            return
        for place in list(self._crew.places.values()):
            for key in self._schedule.leases(place.number)[:1]:
                seconds = now - place.began_at
                if not self._pace.is_slow(place.leases[key].clips, seconds):
                    continue
                if actions := self._schedule.copy(place.number):
                    of_it = about(worker=place.number, shard=key)
                    log.info(
                        "worker %d is slow with shard %s (%.0f s)", place.number, key, seconds, extra=of_it
                    )
                    self._do(actions)

    def _say_what_is_waited_for(self, now: float) -> None:
        places = list(self._crew.places.values())
        why = self._waiting.too_long(sum(p.actor is not None for p in places), self._begun, now)
        if why:
            raise RetryableError(why)
        leases = {p.number: self._schedule.leases(p.number) for p in places}
        for line in self._waiting.stall(places, leases, self._crew.moved_at, now):
            log.warning("%s", line)
        if text := self._waiting.unplaced(places, now):
            log.info("%s", text)

    def _tick(self, now: float) -> None:
        if self._on_progress is None:
            return
        self._ticked_at = now
        told = [(n, p.status) for n, p in self._crew.places.items() if p.status is not None]
        under_way = sum(s.clips for n, s in told if s.key in self._schedule.leases(n)[:1])
        self._on_progress(self._tally.progress(under_way, now - self._started))
