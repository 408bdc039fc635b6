"""RayRunner: finds a cluster, sees that the work fits, and starts a run there."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from types import TracebackType

import psutil

from cluster.run import Run
from cluster.session import Session, address_of, connect, num_cores, num_gpus
from cluster.sizing import Node, Size, choose, shortage
from pipeline.frames import FrameRequest
from pipeline.runner import OnProgress, RunSettings, RunSummary
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import LOCAL, RayOptions
from schemas.errors import SettingsError

log = logging.getLogger("locum.ray")

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
        session = self._connected()
        size = self._size(session.nodes(), decodes=isinstance(task.request, FrameRequest))
        log.info("%d to %d workers, each %s", size.least, size.most, size.shape)
        task = task.on(gpu=size.shape.gpus > 0, num_threads=size.num_threads)
        run = Run(
            session, size, self._options, self._max_attempts, task, store, settings, on_progress, pending
        )
        try:
            return run.run()
        finally:
            run.close()

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
        size = choose(
            nodes, self._options, device=self._device, num_threads=self._num_threads, decodes=decodes
        )
        missing = shortage(nodes, size, buffer_bytes=buffer_bytes)
        if missing:
            raise SettingsError(
                f"the work does not fit: {missing}. See --workers, --cpus-per-worker and the flags beside them"
            )
        return size
