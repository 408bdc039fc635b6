"""When a run gives up waiting for places, and when it says what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import waiting
from cluster.place import Place
from cluster.sizing import Shape
from cluster.waiting import SAY_SECONDS, Waiting

SHAPE = Shape(0.0, 0.5, 1, 0.5)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "free_resources", lambda: "1 CPU")
    monkeypatch.setattr(waiting, "waits", lambda places, leases, now: [f"{len(places)} places"])


def place(number: int, *, asked_at: float, there: bool = True) -> Place:
    group: Any = None
    return Place(number, group, actor=object() if there else None, asked_at=asked_at, moved_at=asked_at)


def wait_for(least: int) -> Waiting:
    return Waiting(least, SHAPE, wait_seconds=60.0, since=0.0, said_at=0.0)


def test_it_gives_up_when_the_least_number_is_not_there_in_time() -> None:
    w = wait_for(2)
    assert w.too_long(1, False, 60.0) == ""
    assert "1 of 2 workers found a place within 60 s" in w.too_long(1, False, 60.1)
    assert "1 CPU" in w.too_long(1, False, 60.1)


def test_time_counts_from_when_they_were_last_there_and_one_is_enough_once_it_has_begun() -> None:
    w = wait_for(2)
    assert w.too_long(2, False, 50.0) == w.too_long(1, False, 110.0) == ""
    assert w.too_long(1, True, 200.0) == ""
    assert w.too_long(0, True, 260.0) == ""
    assert w.too_long(0, True, 261.0) != ""


def test_a_stall_is_said_once_in_a_while() -> None:
    w = wait_for(1)
    places = [place(0, asked_at=0.0)]
    assert w.stall(places, {0: []}, moved_at=1.0, now=SAY_SECONDS) == []
    assert w.stall(places, {0: []}, moved_at=1.0, now=40.0) == ["nothing has moved for 39 s: 1 places"]
    assert w.stall(places, {0: []}, moved_at=1.0, now=41.0) == []
    assert w.stall(places, {0: []}, moved_at=1.0, now=70.0) != []
    assert w.stall(places, {0: []}, moved_at=100.0, now=110.0) == []


def test_workers_without_a_place_are_mentioned_rarely() -> None:
    w = wait_for(1)
    places = [
        place(0, asked_at=0.0),
        place(1, asked_at=0.0, there=False),
        place(2, asked_at=0.0, there=False),
    ]
    assert w.unplaced(places, 20.0) == ""
    assert w.unplaced(places, 40.0).startswith("2 more workers (0.5 CPU and a decode actor of 0.5 CPU each)")
    assert w.unplaced(places, 80.0) == ""
    assert w.unplaced(places, 340.0) != ""
    assert wait_for(1).unplaced(places[:1], 1000.0) == ""
