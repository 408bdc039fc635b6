"""LocalRunner: everything in this process. For debugging, and for machines without Ray.

Nothing here survives a video that crashes its decoder or makes it hang.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from pipeline.admission import Admission
from pipeline.counting import CountingFrames
from pipeline.frames import FrameSource, Request
from pipeline.runner import (
    MAX_FAILED_IN_A_ROW,
    K,
    OnProgress,
    Progress,
    Receipt,
    RunSettings,
    RunSummary,
    T,
    pending_clips,
    say_committed,
)
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task, TaskRun
from schemas.errors import LocumError
from schemas.shard import Shard, ShardKey, ShardResult

log = logging.getLogger("locum.runner")


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

    def try_out(self, task: K, function: Callable[[K], T], *, apart: bool = False) -> T:
        return function(task)


class _Loop:
    """One run of `LocalRunner`: the state between shards."""

    def __init__(
        self,
        request: Request | None,
        running: TaskRun,
        frames: FrameSource,
        store: ShardStore,
        settings: RunSettings,
        on_progress: OnProgress | None,
        pending: list[ShardKey],
    ) -> None:
        self._request, self._running, self._store = request, running, store
        self._frames = CountingFrames(frames, self._tick)
        self._settings, self._on_progress = settings, on_progress
        self._pending, self._shards_total = list(pending), len(pending)
        self._clips_total = sum(pending_clips(store, pending))
        self._admission = Admission(settings.breaker)
        self._computed: dict[ShardKey, tuple[Shard, ShardResult]] = {}
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
                self._computed[current.key] = (current, result)
                self._commit(self._admission.admit(current.key, len(current.videos), result.failures))
            current = following
        self._commit(self._admission.release())
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
                self._frames.prefetch(self._running.wanted(shard), self._request)
                if following is not None:
                    self._announce(following, self._request)
            result = self._running.run(shard, self._frames)
        except LocumError:
            raise
        except Exception as e:  # the shard boundary: one bad shard must not end the others
            log.warning("shard %s: %s: %s", shard.key, type(e).__name__, e, exc_info=True)
            self._summary.failed_shards[shard.key] = f"{type(e).__name__}: {e}"
            self._failed_in_a_row += 1
            if self._failed_in_a_row == MAX_FAILED_IN_A_ROW:
                raise
            return None
        self._failed_in_a_row = 0
        return result

    def _announce(self, following: Shard, request: Request) -> None:
        """Prefetch the next shard. What is wrong with it is said when its turn comes."""
        try:
            wanted = self._running.wanted(following)
        except Exception as e:  # noqa: BLE001 - this shard shall not fail for the next one
            log.debug("shard %s is not prefetched: %s", following.key, e)
            return
        self._frames.prefetch(wanted, request)

    def _commit(self, keys: tuple[ShardKey, ...]) -> None:
        for key in keys:
            shard, result = self._computed.pop(key)
            started = time.perf_counter()
            if not self._store.commit(shard, result):
                self._lost(key)
                continue
            receipt = Receipt.of(shard, result)
            self._summary.add(receipt)
            self._summary.spend("write", time.perf_counter() - started)
            say_committed(log, receipt)
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
