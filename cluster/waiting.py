"""When a run has waited too long, and when to say what it waits for. Pure, but for what the cluster has free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.place import Place, free_resources, waits
from cluster.sizing import Shape
from schemas.shard import ShardKey

SAY_SECONDS = 30.0
"""So long nothing has to move before it is said what is waited for."""
_SAY_AGAIN_SECONDS = 10 * SAY_SECONDS


@dataclass
class Waiting:
    """Of one run: ``least`` workers of a ``shape`` have to find their places within ``wait_seconds``."""

    least: int
    shape: Shape
    wait_seconds: float
    since: float
    """When the least number was last there."""
    said_at: float

    def too_long(self, placed: int, begun: bool, now: float) -> str:
        """Why to give up: the least number of workers did not find places in time; empty where they did."""
        if placed >= (1 if begun else self.least):
            self.since = now
        elif now - self.since > self.wait_seconds:
            return (
                f"{placed} of {self.least} workers found a place within {self.wait_seconds:g} s: "
                f"{self.shape} each is wanted, and what is free is {free_resources()}"
            )
        return ""

    def stall(
        self, places: Sequence[Place], leases: Mapping[int, Sequence[ShardKey]], moved_at: float, now: float
    ) -> list[str]:
        """What is waited for, a line each, where nothing has moved since ``moved_at``."""
        if min(now - self.said_at, now - moved_at) < SAY_SECONDS:
            return []
        self.said_at = now
        return [
            f"nothing has moved for {now - moved_at:.0f} s: {line}" for line in waits(places, leases, now)
        ]

    def unplaced(self, places: Sequence[Place], now: float) -> str:
        """Now and then, where the run moves but some workers find no place; else empty."""
        late = [p for p in places if p.actor is None and now - p.asked_at > SAY_SECONDS]
        if not late or now - self.said_at < SAY_SECONDS:
            return ""
        self.said_at = now + _SAY_AGAIN_SECONDS - SAY_SECONDS
        return f"{len(late)} more workers ({self.shape} each) find no place yet"
