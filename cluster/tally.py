"""What a run on Ray has done so far: receipts that wait for their commit, the summary, and progress. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from pipeline.runner import Progress, Receipt, RunSummary
from schemas.shard import ShardKey

log = logging.getLogger("locum.ray")


class Tally:
    """Counts one run. ``shards_total`` and ``clips_total`` are what was pending when it began."""

    def __init__(self, shards_total: int, clips_total: int) -> None:
        self._shards_total, self._clips_total = shards_total, clips_total
        self._receipts: dict[ShardKey, Receipt] = {}
        self._clips_done = 0
        self.summary = RunSummary()

    def computed(self, receipt: Receipt) -> None:
        """A shard is computed, and may yet be lost with its worker."""
        self._receipts[receipt.key] = receipt

    def keep(self, is_computed: Callable[[ShardKey], bool]) -> None:
        """Forget the shards that went with a worker."""
        self._receipts = {k: r for k, r in self._receipts.items() if is_computed(k)}

    def not_committed(self, key: ShardKey) -> None:
        """The commit of a shard failed."""
        del self._receipts[key]

    def committed(self, key: ShardKey, seconds: float) -> Receipt:
        """A shard is written, which took so long; its receipt."""
        receipt = self._receipts.pop(key)
        receipt = replace(receipt, seconds={**receipt.seconds, "write": seconds})
        self.summary.add(receipt)
        self._clips_done += receipt.planned
        return receipt

    def lost_race(self, key: ShardKey) -> None:
        """Another process has committed a shard."""
        self._receipts.pop(key, None)
        self.summary.lost_races += 1
        log.info("shard %s was committed by another process", key)

    def progress(self, clips_under_way: int, seconds: float) -> Progress:
        """How far it is; ``clips_under_way`` are of shards that are being computed."""
        done = self._clips_done + sum(r.planned for r in self._receipts.values()) + clips_under_way
        return Progress(
            shards_done=self.summary.shards,
            shards_total=self._shards_total,
            clips_done=min(done, self._clips_total),
            clips_total=self._clips_total,
            quarantined=self.summary.quarantined_videos,
            seconds=seconds,
        )
