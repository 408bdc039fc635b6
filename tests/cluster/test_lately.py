"""What was so lately: never waited for, refreshed beside, kept where the storage is away."""

from __future__ import annotations

import threading
import time

import pytest

from cluster.lately import Lately
from schemas.errors import CorruptStoreError, RetryableError
from tests.cluster.conftest import wait_until


def test_nobody_waits_for_a_look_and_there_is_one_at_a_time() -> None:
    go, looks = threading.Event(), []

    def look() -> int:
        looks.append(1)
        if len(looks) > 1:
            go.wait(10)
        return len(looks)

    lately = Lately(look, 0.0)
    started = time.monotonic()
    assert [lately.get() for _ in range(50)] == [1] * 50 and time.monotonic() - started < 1
    assert len(looks) == 2
    go.set()
    wait_until(lambda: lately.get() >= 2, 5)


def test_what_is_young_is_not_looked_up_again() -> None:
    looks: list[int] = []
    lately = Lately(lambda: looks.append(1), 60.0)
    for _ in range(5):
        lately.get()
    assert len(looks) == 1


def test_a_storage_that_is_away_leaves_what_is_known_and_other_faults_are_raised() -> None:
    errors: list[Exception] = []

    def look() -> str:
        if errors:
            raise errors.pop()
        return "known"

    errors.append(RetryableError("away"))
    with pytest.raises(RetryableError):
        Lately(look, 0.0)
    lately = Lately(look, 0.0)
    errors.append(RetryableError("away"))
    assert lately.get() == "known"
    wait_until(lambda: not errors, 5)
    assert lately.get() == "known"
    errors.append(CorruptStoreError("a plan is missing"))

    def raises() -> bool:
        try:
            return lately.get() != "known"
        except CorruptStoreError:
            return True

    wait_until(raises, 5)
