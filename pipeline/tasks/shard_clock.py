"""Where the time of a shard goes."""

from __future__ import annotations

import time


class ShardClock:
    """Splits the time since the last call among names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def add(self, name: str) -> None:
        """What has passed since the last call was for ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def total(self, name: str) -> float:
        """Seconds so far."""
        return self.seconds.get(name, 0.0)
