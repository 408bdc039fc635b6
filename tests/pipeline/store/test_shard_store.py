"""The store: resume equals one run, a shard is committed once, and its accounts add up or nothing is written."""

from __future__ import annotations

import json
import pickle
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.kinds import VIDEOS
from pipeline.store.mend import remove
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count, verify
from schemas.errors import CorruptStoreError, SpecMismatchError, StoreError
from schemas.shard import Shard, ShardKey, ShardResult
from tests.pipeline.store.stores import (
    FINGERPRINT,
    Fault,
    amendment,
    dealt,
    empty_store,
    finish,
    keys_of,
    moved,
    new_store,
    plan_row,
    planned_keys,
    result_of,
    shown,
    spec_of,
    table_of,
    video_id,
)


def test_creating_twice_opens_the_first(place: str) -> None:
    first = empty_store(place)
    second = empty_store(place)
    assert first.document == second.document and ShardStore.is_store(first.url)
    assert ShardStore.open(first.url).document.spec == spec_of()
    with pytest.raises(SpecMismatchError):
        ShardStore.create(place, kind=VIDEOS, name="t", fingerprint=FINGERPRINT, spec={})


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        ShardStore.open(str(tmp_path))
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="no store at"):
        ShardStore.open(str(tmp_path / "file"))


@pytest.mark.parametrize("change", [{"store_version": 2}, {"kind": "other"}, {"more": 1}, None])
def test_a_spec_of_another_making_is_corrupt(tmp_path: Path, change: dict[str, Any] | None) -> None:
    store = empty_store(str(tmp_path))
    body = json.loads(store.files.read("spec.json")) | (change or {})
    store.files.put_over("spec.json", json.dumps(body).encode() if change else b"{")
    with pytest.raises(CorruptStoreError, match=r"spec.json"):
        ShardStore.open(store.url)


def test_any_order_and_any_interruption_end_in_the_same_rows(tmp_path: Path) -> None:
    whole = new_store(str(tmp_path / "whole"), videos=20, shard_clips=4)
    finish(whole)
    for seed in range(3):
        part = new_store(str(tmp_path / f"{seed}"), videos=20, shard_clips=4)
        chance = random.Random(seed)
        while pending := part.pending():
            for key in chance.sample(pending, min(3, len(pending))):
                opened = ShardStore.open(part.url)  # each step is a process of its own
                opened.commit(opened.shard(key), result_of(opened.shard(key)))
        assert read(part).equals(read(whole))
        assert verify(part).clean and count(part).complete


def test_the_shards_hold_what_was_planned_in_key_order(place: str) -> None:
    store = new_store(place, videos=9, shard_clips=6)
    assert finish(store) == [ShardKey(1, n) for n in range(3)]
    for key in store.committed():
        table = store.read_data(key).table
        keys = list(zip(table["video_id"].to_pylist(), table["start_us"].to_pylist(), strict=True))
        assert keys == sorted(keys)
    assert sorted(keys_of(store)) == planned_keys(range(9))
    assert count(store).complete and verify(store).clean


def test_committing_twice_leaves_the_first_file(place: str) -> None:
    store = new_store(place)
    shard = store.shard(ShardKey(1, 0))
    assert store.commit(shard, result_of(shard))
    before = store.files.read("data/g0001-000000.parquet")
    assert not store.commit(shard, result_of(shard, {shard.videos[0].video_id: Fault()}))
    assert store.files.read("data/g0001-000000.parquet") == before
    assert store.pending() == [ShardKey(1, 1)] and store.is_committed(shard.key)


def test_of_concurrent_committers_of_the_same_rows_one_wins(place: str) -> None:
    store = new_store(place, videos=2)
    shard = store.shard(ShardKey(1, 0))
    ready = threading.Barrier(6)

    def commit(_: int) -> bool:
        mine = ShardStore.open(store.url)
        ready.wait()
        return mine.commit(shard, result_of(shard))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(commit, range(6))) == 1
    assert store.files.list("data") == ["g0001-000000.parquet"]
    assert verify(store).clean


def test_a_store_travels_to_other_processes(place: str) -> None:
    store = new_store(place)
    store.in_force()
    store.plan(1).digest  # noqa: B018 - what was cached must not travel
    copy = pickle.loads(pickle.dumps(store))
    assert copy.pending() == store.pending() and copy.document == store.document


@pytest.mark.parametrize(
    "what", ["too few", "too many", "twice", "stranger", "missing too many", "stranger failed"]
)
def test_a_result_that_does_not_add_up_is_not_written(tmp_path: Path, what: str) -> None:
    store = new_store(str(tmp_path))
    shard = store.shard(ShardKey(1, 0))
    good = result_of(shard)
    first = shard.videos[0].video_id
    keys = list(zip(*(good.table[c].to_pylist() for c in ("video_id", "start_us", "end_us")), strict=True))
    failed = result_of(shard, {first: Fault()}).failures[0]
    wrong: dict[str, ShardResult] = {
        "too few": replace(good, table=good.table.slice(1)),
        "too many": replace(good, table=table_of([*keys, (first, 5_000_000, 6_000_000)])),
        "twice": replace(good, table=table_of([*keys[1:], keys[1]])),
        "stranger": replace(good, table=table_of([*keys, ("f" * 32, 0, 1)])),
        "missing too many": replace(good, failures=(failed,)),
        "stranger failed": replace(good, failures=(replace(failed, video_id="f" * 32),)),
    }
    with pytest.raises(StoreError, match=r"add up|twice"):
        store.commit(shard, wrong[what])
    assert store.committed() == set()
    assert store.commit(shard, good)


def test_a_shard_that_was_never_planned_cannot_be_committed(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    for key in (ShardKey(1, 2), ShardKey(2, 0)):
        with pytest.raises(StoreError):
            store.commit(Shard(key, ()), ShardResult(table_of([])))
    assert store.files.list("data") == []


def test_the_footer_accounts_for_failures_and_removals(tmp_path: Path) -> None:
    store = new_store(str(tmp_path), videos=3)
    remove(store, [video_id(1)])
    shard = store.shard(ShardKey(1, 0))
    assert video_id(1) not in {v.video_id for v in shard.videos}
    late = store.plan(1).shard(ShardKey(1, 0))  # as a worker that began before the removal has it
    assert store.commit(late, result_of(late, {video_id(0): Fault(permanent=True, salvaged=1)}))
    footer = next(store.footers())
    assert (footer.planned, footer.rows, footer.missing, footer.tombstoned, footer.reopened) == (
        6,
        3,
        1,
        2,
        0,
    )
    assert footer.balanced and verify(store).clean
    assert {key for key, _ in keys_of(store)} == {video_id(0), video_id(2)}


def test_a_pending_video_that_moved_is_read_where_it_is_now(tmp_path: Path) -> None:
    store = new_store(str(tmp_path), videos=3)
    store.add_plan(amendment([moved(plan_row(1), "/new/1.mp4", "/v/1.mp4")]))
    videos = {v.video_id: v for v in store.shard(ShardKey(1, 0)).videos}
    assert videos[video_id(1)].uri == "/new/1.mp4"
    assert videos[video_id(1)].uris == ("/new/1.mp4", "/v/1.mp4")
    assert videos[video_id(0)].uri == "/v/0.mp4"


def test_a_pending_video_whose_bytes_are_gone_is_not_computed_from_others(tmp_path: Path) -> None:
    """Its URI holds another video now: reading that under the old id would poison the store."""
    store = new_store(str(tmp_path), videos=2)
    store.add_plan([*dealt([plan_row(9, uris=["/v/1.mp4"])], 2), *amendment([moved(plan_row(1))])])
    videos = {v.video_id: v for v in store.shard(ShardKey(1, 0)).videos}
    assert json.loads(videos[video_id(1)].unreadable or "{}")["error"] == "Superseded"
    assert videos[video_id(0)].unreadable is None


# ---------------------------------------------------------------- cost


def requests_of(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the calls to S3 that go through the store's client."""
    calls: Counter[str] = Counter()
    call = store.files.fs._call_s3

    async def counting(method: str, *args: Any, **options: Any) -> Any:
        calls[method] += not method.startswith("list_")
        return await call(method, *args, **options)

    monkeypatch.setattr(store.files.fs, "_call_s3", counting)
    iterate = store.files.fs._iterdir

    def listing(*args: Any, **options: Any) -> Any:
        calls["list"] += 1
        return iterate(*args, **options)

    monkeypatch.setattr(store.files.fs, "_iterdir", listing)
    return calls


@pytest.mark.s3
def test_what_is_pending_costs_two_listings(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(s3_bucket, videos=30, shard_clips=2)
    for key in store.pending()[:5]:
        store.commit(store.shard(key), result_of(store.shard(key)))
    assert len(store.pending()) == 25
    calls = requests_of(store, monkeypatch)
    assert len(store.pending()) == 25
    assert sum(calls.values()) == calls["list"] == 2, calls


@pytest.mark.s3
def test_a_commit_fetches_no_plan_again(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(s3_bucket, videos=30, shard_clips=2)
    keys = store.pending()
    store.commit(store.shard(keys[0]), result_of(store.shard(keys[0])))
    shard = store.shard(keys[1])
    calls = requests_of(store, monkeypatch)
    assert store.commit(shard, result_of(shard))
    assert calls["put_object"] == 1 and calls["get_object"] == 0, calls
    assert calls["list"] == 3, calls  # plan/, tombstones/, and a look above where there are none


def test_failures_are_read_from_the_footers(place: str) -> None:
    store = new_store(place)
    finish(store, {video_id(1): Fault(), video_id(4): Fault(permanent=True, salvaged=1)})
    assert {f.video_id: f.permanent for _, f in failures(store)} == {video_id(1): False, video_id(4): True}
    assert len(shown(store)) == 6 * 2 - 2 - 1
    assert count(store).quarantined_rows == 3 and count(store).quarantined_videos == 2
