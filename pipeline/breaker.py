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

    @property
    def has_judged(self) -> bool:
        """Whether so many videos were seen that ``min_failures`` among them would have been within the share.

        Before that, a transient failure may be the first of a great many: a shard with one had better wait. Otherwise
        a run that is started again and again condemns a few videos each time.
        """
        return self._videos * self._settings.max_transient_share >= self._settings.min_failures

    def admit(self, num_videos: int, failures: Iterable[Failure]) -> None:
        """Count one shard, before it is committed.

        Raises
        ------
        CircuitOpenError
            If the share of failures passes a limit; the shard must not be committed then.
        """
        missing = [f for f in failures if f.missing_rows > 0 and f.attempts > 0]  # others were known before
        away, damaged = [f for f in missing if not f.permanent], [f for f in missing if f.permanent]
        self._videos += num_videos
        self._transient += len(away)
        self._damaged += len(damaged)
        s = self._settings
        for count, limit, of_kind, kind in (
            (self._transient, s.max_transient_share, away, "could not be reached"),
            (self._damaged, s.max_damaged_share, damaged, "are damaged"),
        ):
            if count >= s.min_failures and count > limit * self._videos:
                last = of_kind[-1] if of_kind else None
                words = f"; the last: {last.uri}: {last.error}: {last.message}" if last else ""
                raise CircuitOpenError(
                    f"{count} of {self._videos} videos {kind}, more than the share of {limit:g} at which a run "
                    f"stops{words}. What was committed stands; mend the cause and run again."
                )
