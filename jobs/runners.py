"""Which runner a command uses: Ray, where nothing else is said; this process with ``--local``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.runner import Runner
from schemas.cluster import RayOptions
from schemas.errors import SettingsError


@contextmanager
def runner_for(ray: RayOptions, *, local: bool, max_attempts: int = 3) -> Iterator[Runner]:
    """A runner; what it started (a Ray of its own) goes away with the context.

    Raises
    ------
    SettingsError
        If both ``local`` and a cluster are asked for.
    """
    if local:
        if ray.ray is not None or ray.workers is not None:
            raise SettingsError("--local runs in this process: it does not go with --ray or --workers")
        from pipeline.local_runner import LocalRunner
        from pipeline.video.frame_source import LocalFrameSource

        yield LocalRunner(lambda: LocalFrameSource(max_attempts=max_attempts))
        return
    from cluster.runner import RayRunner

    with RayRunner(ray, max_attempts=max_attempts) as runner:
        yield runner
