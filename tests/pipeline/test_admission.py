"""Admission: what is held, what is let go, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admission import Admission
from pipeline.breaker import BreakerSettings
from schemas.errors import CircuitOpenError
from schemas.shard import Failure, ShardKey


def failed(*, permanent: bool, attempts: int = 3, missing: int = 1) -> Failure:
    return Failure("v" * 32, "s3://b/v.mp4", "open", "Timeout", "no answer", permanent, attempts, missing)


AWAY, DAMAGED = failed(permanent=False), failed(permanent=True)
A, B, C = (ShardKey(1, n) for n in range(3))


def admission(share: float = 0.1, least: int = 2) -> Admission:
    return Admission(BreakerSettings(max_transient_share=share, min_failures=least))


def test_a_shard_without_passing_failures_is_let_through() -> None:
    a = admission()
    assert a.admit(A, 1, []) == (A,)
    assert a.admit(B, 1, [DAMAGED]) == (B,)
    assert a.held == ()


def test_passing_failures_wait_until_the_breaker_can_judge() -> None:
    a = admission()
    assert a.admit(A, 5, [AWAY]) == ()
    assert a.admit(B, 5, []) == (B,)
    assert a.held == (A,)
    assert a.admit(C, 10, []) == (A, C)  # 20 videos: 2 failures among them would have been within a tenth
    assert a.held == ()
    assert a.admit(A, 1, [AWAY]) == (A,)


def test_one_passing_failure_among_damage_is_enough_to_wait() -> None:
    a = admission()
    assert a.admit(A, 5, [DAMAGED, AWAY, DAMAGED]) == ()


def test_what_is_held_when_the_breaker_opens_stays() -> None:
    a = admission()
    a.admit(A, 5, [AWAY])
    with pytest.raises(CircuitOpenError, match="2 of 10 videos"):
        a.admit(B, 5, [AWAY])
    assert a.held == (A,)


def test_the_end_of_a_run_releases_once() -> None:
    a = admission()
    a.admit(A, 1, [AWAY])
    assert a.release() == (A,)
    assert a.release() == ()


def test_a_lost_result_is_not_released_and_may_come_again() -> None:
    a = admission(least=9)
    a.admit(A, 1, [AWAY])
    a.admit(B, 1, [AWAY])
    a.forget(A)
    a.forget(C)  # was never held
    assert a.held == (B,)
    assert a.admit(A, 1, [AWAY]) == ()
    assert a.release() == (B, A)


@given(
    shards=st.lists(st.tuples(st.integers(1, 10), st.integers(0, 3), st.integers(0, 3)), max_size=30),
    least=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_every_shard_is_let_go_once_unless_the_breaker_opens(
    shards: list[tuple[int, int, int]], least: int, share: float
) -> None:
    a = admission(share, least)
    let_go: list[ShardKey] = []
    for number, (videos, away, damaged) in enumerate(shards):
        key = ShardKey(1, number)
        before = a.held
        try:
            now = a.admit(key, videos, [AWAY] * away + [DAMAGED] * damaged)
        except CircuitOpenError:
            assert a.held == before and key not in let_go
            return
        assert now == () or now[-1] == key
        assert away or now, "only a passing failure is a reason to wait"
        let_go += now
    let_go += a.release()
    assert sorted(let_go) == [ShardKey(1, n) for n in range(len(shards))]
