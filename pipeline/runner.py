"""Runners: who does the work. What they share; `pipeline.local_runner` is the one for a single process.

A runner takes what is pending in a store, computes it shard by shard and commits each. Running again after any
interruption does what is left. Two runners may work on one store at once: the first commit of a shard stands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from pipeline.breaker import BreakerSettings
from pipeline.logs import about
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from pipeline.uris import scrubbed
from schemas.shard import Failure, Shard, ShardKey, ShardResult

MAX_FAILED_IN_A_ROW = 3
"""So many shards that fail one after the other are no accident: the run stops."""


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


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a computed shard came to, without its rows."""

    key: ShardKey
    videos: int
    planned: int
    rows: int
    failures: tuple[Failure, ...]
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, shard: Shard, result: ShardResult) -> Receipt:
        seconds = dict(result.seconds)
        return cls(
            shard.key, len(shard.videos), shard.num_planned, result.table.num_rows, result.failures, seconds
        )


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

    def add(self, receipt: Receipt) -> None:
        """Count a shard that was committed."""
        self.shards += 1
        self.rows += receipt.rows
        self.planned += receipt.planned
        self.quarantined_videos += len(receipt.failures)
        for name, seconds in receipt.seconds.items():
            self.spend(name, seconds)

    def to_json(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "shards": self.shards,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "clips_per_second": round(self.rows / self.seconds, 3) if self.seconds else 0.0,
            "seconds_by_stage": {k: round(v, 3) for k, v in self.seconds_by_stage.items()},
            "lost_races": self.lost_races,
            "failed_shards": {str(k): v for k, v in self.failed_shards.items()},
            "out_of_time": self.out_of_time,
        }

    def spend(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        self.seconds_by_stage[stage] = self.seconds_by_stage.get(stage, 0.0) + seconds


OnProgress = Callable[[Progress], None]

T = TypeVar("T")
K = TypeVar("K", bound=Task)


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

    def try_out(self, task: K, function: Callable[[K], T], *, apart: bool = False) -> T:
        """What a function says of a task as this runner's workers would run it, called where they would. What may crash
        or hang, as decoding may, is called ``apart``: in a process of its own, where the runner has such.

        Raises
        ------
        RetryableError
            If it ended with its process, or took too long.
        """
        ...


def say_committed(log: logging.Logger, receipt: Receipt) -> None:
    """A line for the shard, and one for each video that could not be read, or only in part."""
    text = "shard %s: %d clips of %d videos"
    log.info(
        text, receipt.key, receipt.rows, receipt.videos, extra=about(shard=receipt.key, clips=receipt.rows)
    )
    for f in receipt.failures:
        of_it = about(
            shard=receipt.key, video_id=f.video_id, uri=scrubbed(f.uri), stage=f.stage, error=f.error
        )
        log.info("quarantined: %s (%s at %s)", scrubbed(f.uri), f.error, f.stage, extra=of_it)


def pending_clips(store: ShardStore, pending: list[ShardKey]) -> list[int]:
    """Clips of each pending shard, from the plan's work columns alone."""
    import numpy as np

    sums = {}
    for generation in {key.generation for key in pending}:
        plan = store.plan(generation)
        sums[generation] = np.zeros(plan.header.shards, np.int64)
        for batch in plan.batches(["clips", "shard"]):
            clips, shard = batch["clips"].to_numpy(), batch["shard"].to_numpy()
            there = shard >= 0
            np.add.at(sums[generation], shard[there], clips[there])
    return [int(sums[key.generation][key.number]) for key in pending]
