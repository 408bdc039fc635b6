"""The circuit breaker: stop a run in which too much fails, so that expired credentials cannot condemn an archive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import CircuitOpenError
from schemas.shard import Failure


@dataclass(frozen=True)
class BreakerSettings:
    """Shares of a run's videos, above which it stops. Nothing is decided before ``min_failures`` of that sort."""

    max_transient_share: float = 0.1
    max_damaged_share: float = 1.0
    min_failures: int = 20


class CircuitBreaker:
    """Counts videos and failures of one run."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._videos = self._transient = self._damaged = 0

    def admit(self, num_videos: int, failures: Iterable[Failure]) -> None:
        """Count one shard, before it is committed.

        Raises
        ------
        CircuitOpenError
            If the share of failures passes a limit; the shard must not be committed then.
        """
        failures = list(failures)
        self._videos += num_videos
        self._transient += sum(not f.permanent for f in failures)
        self._damaged += sum(f.permanent and f.missing_rows > 0 for f in failures)
        s = self._settings
        for count, limit, kind in (
            (self._transient, s.max_transient_share, "could not be reached"),
            (self._damaged, s.max_damaged_share, "are damaged"),
        ):
            if count >= s.min_failures and count > limit * self._videos:
                last = next((f for f in reversed(failures)), None)
                words = f"; the last: {last.uri}: {last.error}: {last.message}" if last else ""
                raise CircuitOpenError(
                    f"{count} of {self._videos} videos {kind}, more than the share of {limit:g} at which a run stops"
                    f"{words}. What was committed stands; mend the cause and run again."
                )
