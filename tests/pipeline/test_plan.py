"""Planning: shards partition the videos, samples are proportional and stable."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import ShardFiller, auto_shard_clips, stratified_sample, video_clips, with_work
from schemas.clip import ClipSpec, count_clips

COUNTS = st.lists(st.integers(0, 50), max_size=60)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 60), st.integers(1, 7))
def test_shards_are_consecutive_runs_without_a_gap_and_as_full_as_they_can_be(
    counts: list[int], limit: int, batch: int
) -> None:
    filler = ShardFiller(limit)
    clips = np.array(counts, np.int32)
    parts = [filler.assign(clips[i : i + batch]) for i in range(0, len(clips), batch)]
    shards = np.concatenate([*parts, np.empty(0, np.int32)])
    assert len(shards) == len(counts)
    if not counts:
        return
    assert shards[0] == 0 and set(np.diff(shards).tolist()) <= {0, 1}
    held = np.bincount(shards, weights=np.maximum(clips, 1))
    several = np.bincount(shards) > 1
    assert (held[several] <= limit).all()
    first = np.flatnonzero(np.diff(shards)) + 1
    assert (held[:-1] + np.maximum(clips[first], 1) > limit).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.integers(1, 60), st.integers(1, 50))
def test_shards_grow_smaller_towards_the_end_and_are_the_same_in_any_batches(
    counts: list[int], limit: int, batch: int
) -> None:
    clips = np.array(counts, np.int32)
    total = int(np.maximum(clips, 1).sum())
    shards = ShardFiller(limit, total).assign(clips)
    again = ShardFiller(limit, total)
    parts = [again.assign(clips[i : i + batch]) for i in range(0, len(clips), batch)]
    np.testing.assert_array_equal(np.concatenate(parts), shards)
    held = np.bincount(shards, weights=np.maximum(clips, 1))
    left = total - np.concatenate([[0], np.cumsum(held)[:-1]])
    workers = min(max(8, total // limit // 8), 1024)
    allowed = np.minimum(limit, np.maximum(max(4, limit // 64), np.ceil(left / workers)))
    assert (held <= np.maximum(allowed, clips.max())).all()
    first = np.flatnonzero(np.diff(shards)) + 1
    assert (held[:-1] + np.maximum(clips[first], 1) > allowed[:-1]).all()


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 512))
def test_an_automatic_shard_is_within_bounds_and_makes_as_many_as_suit(total: int, batch: int) -> None:
    size = auto_shard_clips(total, batch)
    assert 16 <= size <= 4096
    assert size >= min(2 * batch, total // 8)
    aim = max(64, math.isqrt(total) // 2)
    if aim * 2 * max(batch, 8) <= total <= aim * 4096:
        assert 0.93 * aim <= -(-total // size) <= aim


STRATA = st.lists(st.integers(0, 4), min_size=1, max_size=200)


@settings(deadline=None)
@given(STRATA, st.data())
def test_a_stratified_sample_is_exact_proportional_and_repeatable(
    strata: list[int], data: st.DataObject
) -> None:
    n = len(strata)
    limit = data.draw(st.integers(0, n))
    ids = np.array([f"{(i * 2654435761) % 2**32:032x}" for i in range(n)], "S32")
    stratum = np.array(strata, np.int32)
    mask = stratified_sample(ids, stratum, limit)
    assert mask.sum() == limit
    assert (mask == stratified_sample(ids, stratum, limit)).all()
    order = np.random.default_rng(0).permutation(n)
    assert (stratified_sample(ids[order], stratum[order], limit) == mask[order]).all()
    size, taken = Counter(strata), Counter(stratum[mask].tolist())
    for s in size:
        assert abs(taken[s] - limit * size[s] / n) <= 1 + len(size)
    if limit >= len(size):
        assert set(taken) == set(size)
    if limit < n:
        assert (mask <= stratified_sample(ids, stratum, limit + 1)).all()


def videos(rows: list[tuple[int, int | None, int | None]]) -> pa.RecordBatch:
    duration, start, end = zip(*rows, strict=True)
    return pa.RecordBatch.from_pydict(
        {
            "duration_us": pa.array(duration, pa.int64()),
            "start_us": pa.array(start, pa.int64()),
            "end_us": pa.array(end, pa.int64()),
        }
    )


MOMENT = st.one_of(st.none(), st.integers(0, 10**8))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**8), MOMENT, MOMENT), min_size=1, max_size=20))
def test_clips_are_counted_within_the_segment_and_the_file(
    rows: list[tuple[int, int | None, int | None]],
) -> None:
    spec = ClipSpec(seconds=1.7, stride_seconds=0.9)
    expected = [
        count_clips(min(duration, end if end is not None else duration) - (start or 0), spec)
        for duration, start, end in rows
    ]
    assert video_clips(videos(rows), spec).tolist() == expected


def test_work_stands_in_the_last_two_columns() -> None:
    batch = with_work(videos([(1, None, None)]), np.array([3], np.int32), np.array([-1], np.int32))
    assert batch.schema.names[-2:] == ["clips", "shard"]
    assert batch.to_pylist()[0]["clips"] == 3 and batch.to_pylist()[0]["shard"] == -1
    with pytest.raises(ValueError, match="same length"):
        with_work(videos([(1, None, None)]), np.array([3, 4], np.int32), np.array([-1], np.int32))
