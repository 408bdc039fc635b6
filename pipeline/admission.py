"""Which computed shards may be committed now: all, but for those whose failures may be the first of a great many."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.breaker import BreakerSettings, CircuitBreaker
from schemas.shard import Failure, ShardKey


class Admission:
    """Asks the circuit breaker, and keeps a shard with passing failures waiting until it can judge.

    Knows keys only; who holds the results commits those that are named, in the order named.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._breaker = CircuitBreaker(settings)
        self._held: list[ShardKey] = []

    @property
    def held(self) -> tuple[ShardKey, ...]:
        return tuple(self._held)

    def admit(self, key: ShardKey, num_videos: int, failures: Sequence[Failure]) -> tuple[ShardKey, ...]:
        """Keys that may be committed now that ``key`` is computed.

        Raises
        ------
        CircuitOpenError
            If too many videos failed; neither ``key`` nor what is held may be committed.
        """
        self._breaker.admit(num_videos, failures)
        if self._breaker.has_judged:
            return (*self.release(), key)
        if all(f.permanent for f in failures):
            return (key,)
        self._held.append(key)
        return ()

    def forget(self, key: ShardKey) -> None:
        """The result of ``key`` is lost; it will be computed again."""
        if key in self._held:
            self._held.remove(key)

    def release(self) -> tuple[ShardKey, ...]:
        """All that is held: the run ends, and the breaker did not open."""
        held, self._held = tuple(self._held), []
        return held
