"""What a task is. The frozen `Task` says what is to be done and travels; the `TaskRun` holds the models and does it."""

from __future__ import annotations

from typing import Protocol, Self

from pipeline.frames import FrameSource, Request
from schemas.shard import Shard, ShardResult


class TaskRun(Protocol):
    """A task under way in one process. Runs one shard at a time."""

    def wanted(self, shard: Shard) -> Shard:
        """The shard as `run` will stream it: with the clips alone that are wanted, where not all are."""
        ...

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        """Compute a shard. A bad video is a `Failure` in the result; only what dooms the shard is raised."""
        ...

    def close(self) -> None:
        """Free models and threads."""
        ...


class Task(Protocol):
    """Picklable and frozen. ``request`` says what it will ask of the videos, None where it asks nothing."""

    @property
    def request(self) -> Request | None: ...

    def on(self, *, gpu: bool, num_threads: int) -> Self:
        """The same for a worker with or without a GPU of its own; what was said of device and threads stands."""
        ...

    def start(self) -> TaskRun:
        """Load what is needed, in the process that will run it."""
        ...
