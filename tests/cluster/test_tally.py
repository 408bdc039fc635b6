"""Progress never runs backwards on a good run, and ends at what was there to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.tally import Tally
from pipeline.runner import Receipt
from schemas.shard import ShardKey


def receipt(number: int, planned: int) -> Receipt:
    return Receipt(ShardKey(1, number), 1, planned, planned, (), {"teacher": 1.0})


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_each_shard_counts_once_whatever_the_order(planned: list[int], data: st.DataObject) -> None:
    tally = Tally(len(planned), sum(planned))
    steps = data.draw(st.permutations([n for n in range(len(planned)) for _ in range(2)]))
    seen, before = set[int](), 0
    for number in steps:
        if number in seen:
            tally.committed(ShardKey(1, number), 0.5)
        else:
            tally.computed(receipt(number, planned[number]))
            seen.add(number)
        now = tally.progress(0, 1.0).clips_done
        assert before <= now == sum(planned[n] for n in seen)
        before = now
    end = tally.progress(0, 1.0)
    assert (end.clips_done, end.shards_done) == (end.clips_total, end.shards_total)
    assert tally.summary.seconds_by_stage == {"teacher": float(len(planned)), "write": 0.5 * len(planned)}


def test_what_a_worker_took_with_it_no_longer_counts() -> None:
    tally = Tally(3, 30)
    for number in range(3):
        tally.computed(receipt(number, 10))
    tally.keep(lambda key: key.number != 1)
    assert tally.progress(0, 1.0).clips_done == 20
    tally.not_committed(ShardKey(1, 2))
    assert tally.progress(4, 1.0).clips_done == 14
    tally.lost_race(ShardKey(1, 0))
    tally.lost_race(ShardKey(1, 1))  # skipped before it was computed
    assert tally.summary.lost_races == 2 and tally.summary.rows == 0


def test_what_is_under_way_never_shows_more_than_there_is() -> None:
    assert Tally(1, 10).progress(99, 1.0).clips_done == 10
