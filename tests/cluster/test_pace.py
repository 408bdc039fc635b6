"""Which shards come first, and which are slow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.pace import Pace, long_ones_first
from schemas.shard import ShardKey


def test_a_shard_is_slow_that_takes_half_as_long_again_as_its_size_does() -> None:
    pace = Pace()
    for clips in (10, 20, 30, 40):
        pace.note(clips, 2.0 * clips)
    assert not pace.is_slow(10, 1e9)  # too little is known yet
    pace.note(50, 100.0)
    assert not pace.is_slow(100, 300.0) and not pace.is_slow(100, 314.0)
    assert pace.is_slow(100, 316.0)
    assert not pace.is_slow(1, 15.0)  # some seconds are nobody's


def test_one_slow_shard_moves_no_limit_and_old_ones_are_forgotten() -> None:
    pace = Pace()
    for _ in range(10):
        pace.note(1, 1.0)
    pace.note(1, 10_000.0)
    assert pace.is_slow(100, 200.0)
    for _ in range(200):
        pace.note(1, 100.0)
    assert not pace.is_slow(100, 10_000.0)


def test_shards_of_one_long_video_come_first() -> None:
    keys = [ShardKey(1, n) for n in range(6)]
    ordered = long_ones_first(keys, [10, 9, 100, 8, 300, 7])
    assert [k.number for k in ordered] == [4, 2, 0, 1, 3, 5]
    assert long_ones_first([], []) == []


@given(st.lists(st.integers(0, 1000), max_size=50))
def test_nothing_is_lost_by_ordering(clips: list[int]) -> None:
    keys = [ShardKey(1, n) for n in range(len(clips))]
    assert sorted(long_ones_first(keys, clips)) == keys
