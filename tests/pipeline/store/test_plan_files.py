"""Plan files: shards partition the videos, nothing is lost on the way, and two adders are never one generation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.store import plan_files
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import TARGETS
from pipeline.store.plan_files import PlanFile, PlanHeader, encode_plan, plan_name
from schemas.errors import CorruptStoreError, StoreError
from tests.pipeline.store.stores import amendment, dealt, empty_store, new_store, plan_row, video_id

CLIPS = st.lists(st.integers(0, 9), min_size=0, max_size=60)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, batches: list[pa.RecordBatch], header: PlanHeader, tag: object) -> PlanFile:
    files = StoreFiles(str(folder / f"{tag}"))
    files.put_over(plan_name(header.generation), encode_plan(batches, TARGETS, header))
    return PlanFile(files, TARGETS, header.generation)


@SLOW
@given(
    clips=CLIPS, shard_clips=st.integers(1, 20), group_rows=st.integers(1, 30), batch_rows=st.integers(1, 25)
)
def test_shards_partition_the_videos(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clips: list[int],
    shard_clips: int,
    group_rows: int,
    batch_rows: int,
) -> None:
    monkeypatch.setattr(plan_files, "_MIN_GROUP_ROWS", group_rows)
    rows = [plan_row(n, c) for n, c in enumerate(clips)]
    batches = [b for t in dealt(rows, shard_clips) for b in pa.Table.from_batches([t]).to_batches(batch_rows)]
    batches += amendment([plan_row(1000)])
    plan = written(tmp_path, batches, PlanHeader(3, 0, 0, 0, True, {"source": "x"}), "p")
    shards = [plan.shard(key) for key in plan.shard_keys()]
    videos = [v for s in shards for v in s.videos]
    assert sorted(v.video_id for v in videos) == sorted(video_id(n) for n in range(len(clips)))
    assert {v.video_id: v.num_clips for v in videos} == {video_id(n): c for n, c in enumerate(clips)}
    assert plan.header.videos == len(clips) + 1 and plan.header.clips == sum(clips)
    assert plan.header.shards == len(shards)
    assert plan.header.generation == 3 and plan.header.reopens and plan.header.notes == {"source": "x"}
    for shard in shards:
        ids = [v.video_id for v in shard.videos]
        assert ids == sorted(ids) and ids
        assert shard.num_planned <= shard_clips or len(ids) == 1
        assert plan.clips(shard.key.number) == {v.video_id: v.num_clips for v in shard.videos}
    assert pa.Table.from_batches(plan.batches(), TARGETS.plan_schema).equals(
        pa.Table.from_batches(batches, TARGETS.plan_schema)
    )


def test_a_plan_of_nothing_has_no_shards(tmp_path: Path) -> None:
    plan = written(tmp_path, [], PlanHeader(1, 0, 0, 0), "p")
    assert list(plan.shard_keys()) == [] and sum(b.num_rows for b in plan.batches()) == 0
    assert plan.rows(0).num_rows == 0


def test_threads_may_read_one_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_files, "_MIN_GROUP_ROWS", 10)
    rows = [plan_row(n) for n in range(200)]
    batches = pa.Table.from_batches(dealt(rows, 4)).to_batches(10)
    plan = written(tmp_path, batches, PlanHeader(1, 0, 0, 0), "p")
    expected = {key: plan.shard(key) for key in plan.shard_keys()}
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert dict(zip(expected, pool.map(plan.shard, expected), strict=True)) == expected


def test_the_digest_is_of_the_bytes(place: str) -> None:
    store = new_store(place)
    again = type(store).open(store.url)
    assert again.plan(1).digest == store.plan(1).digest
    files = store.files
    body = bytearray(files.read(plan_name(1)))
    body[10] ^= 1
    files.put_over(plan_name(1), bytes(body))
    assert type(store).open(store.url).plan(1).digest != store.plan(1).digest


def test_one_of_several_adders_makes_the_generation(place: str) -> None:
    store = new_store(place)
    ready = threading.Barrier(4)

    def add(n: int) -> bool:
        mine = type(store).open(store.url)
        mine.plans()
        batches = dealt([plan_row(100)], 2)  # all of them add the same
        ready.wait()
        return mine.add_plan(batches) is not None

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(4))) == 1
    assert store.generations() == [1, 2]


def test_what_was_planned_on_old_knowledge_is_refused(tmp_path: Path) -> None:
    """One adder looks, another adds, then the first adds: it must look again, or a video is planned twice."""
    first, second = new_store(str(tmp_path)), empty_store(str(tmp_path))
    first.plans(), second.plans()
    assert second.add_plan(dealt([plan_row(50)], 2)) is not None
    assert first.add_plan(dealt([plan_row(50)], 2)) is None
    assert first.add_plan(dealt([plan_row(50)], 2)) is None
    first.plans()
    assert first.add_plan(dealt([plan_row(51)], 2)) is not None
    assert second.add_plan(dealt([plan_row(52)], 2), after=3) is not None
    assert first.generations() == [1, 2, 3, 4]


def test_a_missing_generation_is_corrupt(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    for n in (10, 11):
        store.add_plan(dealt([plan_row(n)], 2))
    store.files.delete(plan_name(2))
    with pytest.raises(CorruptStoreError, match=r"\[1, 3\]"):
        type(store).open(store.url).plans()
    with pytest.raises(StoreError, match="no generation 9"):
        store.plan(9)


def test_a_damaged_plan_is_corrupt_and_named(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    body = store.files.read(plan_name(1))
    for damaged in (b"", body[:-20], b"PAR1" + bytes(50) + b"PAR1"):
        store.files.put_over(plan_name(1), damaged)
        with pytest.raises(CorruptStoreError, match=r"g0001.parquet"):
            type(store).open(store.url).plan(1)
