"""Which runner a command uses: Ray, where nothing else is said; this process with ``--local``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from pipeline.runner import Runner
from schemas.cluster import RayOptions
from schemas.errors import SettingsError


@contextmanager
def runner_for(
    ray: RayOptions,
    *,
    local: bool,
    max_attempts: int = 3,
    device: str = "auto",
    num_threads: int | None = None,
) -> Iterator[Runner]:
    """A runner; what it started (a Ray of its own) goes away with the context.

    What is printed meanwhile, by Ray or by a teacher, goes to stderr: it is not the command's answer.

    Raises
    ------
    SettingsError
        If both ``local`` and a cluster are asked for.
    """
    if local:
        if ray.ray is not None or ray.workers is not None:
            raise SettingsError("--local runs in this process: it does not go with --ray or --workers")
        from pipeline.local_runner import LocalRunner
        from pipeline.models.memory import keep_freed_memory
        from pipeline.video.frame_source import LocalFrameSource

        keep_freed_memory()
        yield LocalRunner(lambda: LocalFrameSource(max_attempts=max_attempts))
        return
    from cluster.runner import RayRunner

    runner = RayRunner(ray, max_attempts=max_attempts, device=device, num_threads=num_threads)
    with redirect_stdout(sys.stderr), runner:
        yield runner
