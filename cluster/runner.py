"""RayRunner: finds a cluster, sees that the work fits, and starts a run there."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import cast

import psutil
import ray

from cluster.run import Run
from cluster.session import Session, address_of, connect, num_cores, num_gpus
from cluster.sizing import Node, Size, choose, shortage
from pipeline.frames import FrameRequest
from pipeline.runner import K, OnProgress, RunSettings, RunSummary, T
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import LOCAL, RayOptions
from schemas.errors import RetryableError, SettingsError

log = logging.getLogger("locum.ray")

_TRY_SECONDS = 120.0
_STORE_MARGIN = 1.5
_STORE_FLOOR = 100 << 20


class RayRunner:
    """A `pipeline.runner.Runner` on Ray. Connects, or starts a Ray of its own, when first there is work.

    ``device`` and ``num_threads`` are those of the teacher that will run, so that what cannot fit is found before
    anything is started. Close it, or use it as a context: what it started goes away then.
    """

    def __init__(
        self,
        options: RayOptions = RayOptions(),
        *,
        max_attempts: int = 3,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        self._options, self._max_attempts = options, max_attempts
        self._device, self._num_threads = device, num_threads
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
            If workers or decode actors do not start, do not come in time, or die one after another.
        ShardError
            If several shards after one another end in an exception.
        """
        pending = store.pending()
        if not pending:
            return RunSummary()
        session, size, task = self._sized(task)
        log.info("%d to %d workers, each %s", size.least, size.most, size.shape)
        run = Run(
            session, size, self._options, self._max_attempts, task, store, settings, on_progress, pending
        )
        try:
            return run.run()
        finally:
            run.close()

    def try_out(self, task: K, function: Callable[[K], T], *, apart: bool = False) -> T:
        """In this process where workers would be like it, on a Ray of its own without a GPU; never so if ``apart``."""
        session, size, task = self._sized(task)
        if session.own and not size.shape.gpus and not apart:
            return function(task)
        there = ray.remote(
            num_cpus=size.shape.bundles[0]["CPU"], num_gpus=size.shape.gpus, max_retries=0, max_calls=1
        )(_call_in)
        answer = there.remote(os.getcwd(), function, task)
        try:
            return cast(T, ray.get(answer, timeout=_TRY_SECONDS + self._options.patience))
        except ray.exceptions.RayTaskError as e:
            raise e.cause from None
        except (ray.exceptions.RayError, TimeoutError) as e:
            ray.cancel(answer, force=True)
            raise RetryableError(f"trying it out on a worker: {e}") from e

    def _sized(self, task: K) -> tuple[Session, Size, K]:
        """The session, the size of a run of the task there, and the task as workers of that size run it."""
        session = self._connected()
        size = self._size(session.nodes(), decodes=isinstance(task.request, FrameRequest))
        return session, size, task.on(gpu=size.shape.gpus > 0, num_threads=size.num_threads)

    def _connected(self) -> Session:
        """The session, opened with the first work. What cannot fit on this machine is refused before Ray is started."""
        if self._session is None:
            store_bytes = _STORE_FLOOR
            if address_of(self._options) == LOCAL:
                memory = float(psutil.virtual_memory().available)
                size = self._size([Node(num_cores(), num_gpus(), memory, float("inf"))], decodes=True)
                places = max(
                    size.least, min(size.most, math.floor(num_cores() / size.shape.total_cpus + 1e-6))
                )
                store_bytes += int(places * (self._options.buffer_mb << 20) * _STORE_MARGIN)
            self._session = self._stack.enter_context(connect(self._options, object_store_bytes=store_bytes))
        return self._session

    def _size(self, nodes: list[Node], *, decodes: bool) -> Size:
        buffer_bytes = self._options.buffer_mb << 20 if decodes else 0
        may_grow = address_of(self._options) != LOCAL and self._options.wait_seconds is not None
        size = choose(
            nodes,
            self._options,
            device=self._device,
            num_threads=self._num_threads,
            decodes=decodes,
            may_grow=may_grow,
        )
        missing = shortage(nodes, size, buffer_bytes=buffer_bytes)
        if missing and may_grow:
            log.warning("the work does not fit yet: %s", missing)
        elif missing:
            raise SettingsError(
                f"the work does not fit: {missing}. See --workers, --cpus-per-worker and the flags beside them; "
                "for nodes that are still to come, --wait-seconds"
            )
        return size


def _call_in(folder: str, function: Callable[[K], T], task: K) -> T:
    """In a process of a node; factories and weights may be named by paths relative to ``folder``."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return function(task)
