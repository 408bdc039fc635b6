"""The circuit breaker: when it opens, and what it says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.breaker import BreakerSettings, CircuitBreaker
from schemas.errors import CircuitOpenError
from schemas.shard import Failure


def failed(*, permanent: bool, missing: int = 1, error: str = "Timeout") -> Failure:
    return Failure("v" * 32, "s3://b/v.mp4", "open", error, "it did not answer", permanent, 3, missing)


AWAY, DAMAGED = failed(permanent=False), failed(permanent=True, error="InvalidDataError")


@settings(deadline=None)
@given(
    shards=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40)), max_size=12),
    transient=st.floats(0, 1),
    damaged=st.floats(0, 1),
    least=st.integers(1, 30),
)
def test_it_opens_at_the_first_shard_that_passes_a_share(
    shards: list[tuple[int, int, int]], transient: float, damaged: float, least: int
) -> None:
    breaker = CircuitBreaker(BreakerSettings(transient, damaged, least))
    videos = away = broken = 0
    for n, a, d in shards:
        a, d = min(a, n), min(d, n - min(a, n))
        videos, away, broken = videos + n, away + a, broken + d
        too_much = (away >= least and away > transient * videos) or (
            broken >= least and broken > damaged * videos
        )
        if too_much:
            with pytest.raises(CircuitOpenError):
                breaker.admit(n, [AWAY] * a + [DAMAGED] * d)
            return
        breaker.admit(n, [AWAY] * a + [DAMAGED] * d)


def test_by_default_damage_never_stops_a_run_and_a_tenth_away_does() -> None:
    breaker = CircuitBreaker(BreakerSettings())
    breaker.admit(100, [DAMAGED] * 100)
    breaker.admit(900, [AWAY] * 100)
    with pytest.raises(CircuitOpenError):
        breaker.admit(1, [AWAY])


def test_a_few_failures_decide_nothing() -> None:
    breaker = CircuitBreaker(BreakerSettings(max_transient_share=0.0))
    breaker.admit(19, [AWAY] * 19)
    with pytest.raises(CircuitOpenError, match="20 of 20 videos"):
        breaker.admit(1, [AWAY])


def test_what_was_known_to_be_away_before_the_run_is_not_counted_again() -> None:
    breaker = CircuitBreaker(BreakerSettings())
    breaker.admit(100, [failed(permanent=False, missing=0)] * 100)
    breaker.admit(100, [failed(permanent=True, missing=0)] * 100)


def test_the_message_shows_the_last_failure_of_the_kind_that_opened_it() -> None:
    breaker = CircuitBreaker(BreakerSettings())
    words = (
        r"40 of 50 videos could not be reached.*0\.1.*s3://b/v\.mp4: Timeout: it did not answer.*run again"
    )
    with pytest.raises(CircuitOpenError, match=words):
        breaker.admit(50, [*[AWAY] * 40, DAMAGED])
