"""What to do about a commit that the storage refused in passing: try again, elsewhere, give it up, or stop. Pure.

A worker tries four times, with pauses. Then another computes the shard from the beginning, for it may have been the
first one's surroundings; what two workers could not write is given up. Where no commit at all succeeded for long since
one was refused, the storage is down. Times are given.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from schemas.shard import ShardKey

PAUSES = (2.0, 8.0, 32.0)
"""Seconds after which a worker is told again, and up to half as long again."""
MAX_WORKERS = 2
DOWN_SECONDS = 180.0
"""So long after a refusal no commit has to succeed before the storage is taken to be down."""


@dataclass(frozen=True, slots=True)
class Again:
    """The same worker is to try again after a pause."""

    seconds: float


Verdict = Again | Literal["elsewhere", "given up", "down"]


class Patience:
    """Of one run. Shards may take longer than a storage is given: what counts is the time since the first refusal."""

    def __init__(self) -> None:
        self._workers: Counter[ShardKey] = Counter()
        self._refused_since: float | None = None

    def committed(self) -> None:
        """Some commit succeeded."""
        self._refused_since = None

    def refused(self, key: ShardKey, tried: int, now: float) -> Verdict:
        """What to do after a worker has tried so many times to commit a shard."""
        since = self._refused_since = now if self._refused_since is None else self._refused_since
        if tried <= len(PAUSES):
            return Again(PAUSES[tried - 1] * random.uniform(1.0, 1.5))
        if now - since > DOWN_SECONDS:
            return "down"
        self._workers[key] += 1
        return "elsewhere" if self._workers[key] < MAX_WORKERS else "given up"
