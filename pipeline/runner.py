"""Runners: who does the work. The protocol, and the one for a single process.

A runner takes what is pending in a store, computes it shard by shard and commits each. Running again after any
interruption does what is left. Two runners may work on one store at once: the first commit of a shard stands.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.breaker import BreakerSettings, CircuitBreaker
from pipeline.frames import Clip, FrameRequest, FrameSource, VideoEnd
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task, TaskRun
from schemas.errors import LocumError
from schemas.shard import Shard, ShardKey, ShardResult

log = logging.getLogger("locum.runner")

_MAX_FAILED_IN_A_ROW = 3


@dataclass(frozen=True)
class RunSettings:
    """Bounds of one run; none of them changes a number."""

    max_seconds: float | None = None
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    def less(self, seconds: float) -> RunSettings:
        """The same with so much of the time spent."""
        return (
            self
            if self.max_seconds is None
            else replace(self, max_seconds=max(0.0, self.max_seconds - seconds))
        )


@dataclass(frozen=True)
class Progress:
    """How far a run is. Counts are of this run; ``clips_total`` is what was pending when it began."""

    shards_done: int
    shards_total: int
    clips_done: int
    clips_total: int
    quarantined: int
    seconds: float


@dataclass
class RunSummary:
    """What a run did. ``seconds_by_stage`` adds up over shards."""

    shards: int = 0
    rows: int = 0
    planned: int = 0
    quarantined_videos: int = 0
    lost_races: int = 0
    failed_shards: dict[ShardKey, str] = field(default_factory=dict)
    out_of_time: bool = False
    seconds: float = 0.0
    seconds_by_stage: dict[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


class Runner(Protocol):
    """Runs a task over everything pending in a store."""

    def run(
        self,
        task: Task,
        store: ShardStore,
        settings: RunSettings = ...,
        on_progress: OnProgress | None = None,
    ) -> RunSummary:
        """Returns when nothing is pending, or time is up.

        Raises
        ------
        CircuitOpenError
            If too many videos fail.
        LocumError
            If the settings or the storage do not allow to go on; what was committed stands.
        """
        ...


class LocalRunner:
    """Everything in this process: a decode thread feeds the task.

    ``open_frames`` makes the frame source; it is closed at the end of each run.
    """

    def __init__(self, open_frames: Callable[[], FrameSource]) -> None:
        self._open_frames = open_frames

    def run(
        self,
        task: Task,
        store: ShardStore,
        settings: RunSettings = RunSettings(),
        on_progress: OnProgress | None = None,
    ) -> RunSummary:
        pending = store.pending()
        if not pending:
            return RunSummary()
        frames = self._open_frames()
        try:
            running = task.start()
            try:
                return _Loop(task.request, running, frames, store, settings, on_progress, pending).run()
            finally:
                running.close()
        finally:
            frames.close()


class _Loop:
    """One run of `LocalRunner`: the state between shards."""

    def __init__(
        self,
        request: FrameRequest | None,
        running: TaskRun,
        frames: FrameSource,
        store: ShardStore,
        settings: RunSettings,
        on_progress: OnProgress | None,
        pending: list[ShardKey],
    ) -> None:
        self._request, self._running, self._store = request, running, store
        self._frames = _Counting(frames, self._tick)
        self._settings, self._on_progress = settings, on_progress
        self._pending, self._shards_total = list(pending), len(pending)
        self._clips_total = _pending_clips(store, pending)
        self._breaker = CircuitBreaker(settings.breaker)
        self._held: list[tuple[Shard, ShardResult]] = []
        self._failed_in_a_row = 0
        self._summary = RunSummary()
        self._clips_done = self._in_shard = 0
        self._started = time.perf_counter()

    def run(self) -> RunSummary:
        current = self._take()
        while current is not None and not self._time_is_up():
            following = self._take()
            self._in_shard = 0
            if self._store.is_committed(current.key):  # by another process, while it waited here
                self._lost(current.key)
            elif (result := self._compute(current, following)) is not None:
                self._admit(current, result)
            current = following
        self._commit_held()
        self._summary.out_of_time = current is not None
        self._summary.seconds = time.perf_counter() - self._started
        return self._summary

    def _take(self) -> Shard | None:
        """The next shard that nobody has done. After losing a race, a random one: two runners then part ways."""
        while self._pending:
            at = random.randrange(len(self._pending)) if self._summary.lost_races else 0
            key = self._pending.pop(at)
            if self._store.is_committed(key):
                self._lost(key)
                continue
            return self._store.shard(key)
        return None

    def _compute(self, shard: Shard, following: Shard | None) -> ShardResult | None:
        """The shard's result; None where it failed, which leaves it pending. Raises when shard after shard fails."""
        try:
            if self._request is not None:
                self._frames.prefetch(shard, self._request)
                if following is not None:
                    self._frames.prefetch(following, self._request)
            result = self._running.run(shard, self._frames)
        except LocumError:
            raise
        except Exception as e:  # the shard boundary: one bad shard must not end the others
            log.warning("shard %s: %s: %s", shard.key, type(e).__name__, e, exc_info=True)
            self._summary.failed_shards[shard.key] = f"{type(e).__name__}: {e}"
            self._failed_in_a_row += 1
            if self._failed_in_a_row == _MAX_FAILED_IN_A_ROW:
                raise
            return None
        self._failed_in_a_row = 0
        return result

    def _admit(self, shard: Shard, result: ShardResult) -> None:
        """Commit a shard, or hold it while its transient failures may be the first of a great many."""
        self._breaker.admit(len(shard.videos), result.failures)
        if self._breaker.has_judged:
            self._commit_held()
        elif not all(f.permanent for f in result.failures):
            self._held.append((shard, result))
            return
        self._commit(shard, result)

    def _commit_held(self) -> None:
        while self._held:
            self._commit(*self._held.pop(0))

    def _commit(self, shard: Shard, result: ShardResult) -> None:
        if not self._store.commit(shard, result):
            self._lost(shard.key)
            return
        s = self._summary
        s.shards += 1
        s.rows += result.table.num_rows
        s.planned += shard.num_planned
        s.quarantined_videos += len(result.failures)
        for name, seconds in result.seconds.items():
            s.seconds_by_stage[name] = s.seconds_by_stage.get(name, 0.0) + seconds
        self._clips_done += shard.num_planned
        self._in_shard = 0
        self._tick(0)

    def _lost(self, key: ShardKey) -> None:
        self._summary.lost_races += 1
        log.info("shard %s was committed by another process", key)

    def _time_is_up(self) -> bool:
        limit = self._settings.max_seconds
        return limit is not None and time.perf_counter() - self._started >= limit

    def _tick(self, clips: int) -> None:
        self._in_shard += clips
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    shards_done=self._summary.shards,
                    shards_total=self._shards_total,
                    clips_done=self._clips_done + self._in_shard,
                    clips_total=self._clips_total,
                    quarantined=self._summary.quarantined_videos,
                    seconds=time.perf_counter() - self._started,
                )
            )


class _Counting:
    """A frame source that tells how many clips went by."""

    def __init__(self, inner: FrameSource, tick: Callable[[int], None]) -> None:
        self._inner, self._tick = inner, tick

    def stream(self, shard: Shard, request: FrameRequest) -> Iterator[Clip | VideoEnd]:
        for event in self._inner.stream(shard, request):
            if isinstance(event, Clip):
                self._tick(1)
            yield event

    def prefetch(self, shard: Shard, request: FrameRequest) -> None:
        self._inner.prefetch(shard, request)

    def close(self) -> None:
        self._inner.close()


def _pending_clips(store: ShardStore, pending: list[ShardKey]) -> int:
    """Clips of the pending shards, from the plan's work columns alone."""
    import numpy as np

    wanted: dict[int, set[int]] = {}
    for key in pending:
        wanted.setdefault(key.generation, set()).add(key.number)
    total = 0
    for generation, numbers in wanted.items():
        plan = store.plan(generation)
        if len(numbers) == plan.header.shards:
            total += plan.header.clips
            continue
        chosen = np.array(sorted(numbers))
        for batch in plan.batches(["clips", "shard"]):
            total += int(batch["clips"].to_numpy()[np.isin(batch["shard"].to_numpy(), chosen)].sum())
    return total
