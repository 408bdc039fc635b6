"""Mending: what was removed never comes back, what failed is computed anew, and the accounts hold in any order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.store.files import TMP
from pipeline.store.mend import derive, remove, retry, sweep
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count, verify
from pipeline.tasks.targets_table import rederive
from schemas.errors import RetryableError, SettingsError, StoreError
from schemas.shard import ShardKey
from tests.pipeline.store.stores import (
    Fault,
    amendment,
    dealt,
    finish,
    keys_of,
    moved,
    new_store,
    plan_row,
    planned_keys,
    result_of,
    shown,
    video_id,
)

FAULTS = {
    video_id(1): Fault(),
    video_id(3): Fault(permanent=True, salvaged=1),
    video_id(4): Fault(permanent=True),
}


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    made = new_store(str(tmp_path))
    finish(made, FAULTS)
    return made


def raw_keys(store: ShardStore) -> list[tuple[str, int]]:
    """Keys in the files as they lie there, whatever counts."""
    tables = [store.read_data(key, ["video_id", "start_us"]).table for key in sorted(store.committed())]
    pairs = (zip(t["video_id"].to_pylist(), t["start_us"].to_pylist(), strict=True) for t in tables)
    return [pair for p in pairs for pair in p]


def is_proved(store: ShardStore) -> bool:
    """Clean and complete, and the counts are those of what lies there."""
    report = verify(store)
    c = report.counts
    return report.clean and c.complete and c == count(store) and c.rows == len(raw_keys(store))


# ---------------------------------------------------------------- remove


def test_removed_rows_go_and_the_accounts_hold(place: str) -> None:
    store = new_store(place)
    finish(store, FAULTS)
    assert remove(store, [video_id(0), video_id(3)], "asked for") == 3
    assert sorted(raw_keys(store)) == sorted(keys_of(store)) == planned_keys([2, 5])
    assert {f.video_id for _, f in failures(store)} == {video_id(1), video_id(4)}
    assert is_proved(store) and count(store).tombstoned_rows == 4


def test_removing_again_changes_nothing(store: ShardStore) -> None:
    assert remove(store, [video_id(0)]) == 2
    files = {f: store.files.list(f) for f in ("data", "tombstones")}
    bodies = [store.files.read(f"data/{n}") for n in files["data"]]
    assert remove(store, [video_id(0)]) == 0 and remove(store, []) == 0
    assert {f: store.files.list(f) for f in files} == files
    assert [store.files.read(f"data/{n}") for n in files["data"]] == bodies


def test_an_unknown_video_is_refused_and_nothing_is_removed(store: ShardStore) -> None:
    with pytest.raises(SettingsError, match=r"no video ffff.* \(and 1 more\)"):
        remove(store, [video_id(0), "f" * 32, "g" * 32])
    assert store.tombstones() == frozenset() and len(keys_of(store)) == 7


def test_a_removed_video_never_comes_back(place: str) -> None:
    """A writer began before the removal, and commits after it; another shard is pending then."""
    store = new_store(place)
    late = ShardStore.open(store.url)
    shards = [late.shard(key) for key in late.pending()]
    results = [result_of(s) for s in shards]
    remove(store, [video_id(0), video_id(5)])
    assert all(late.commit(s, r) for s, r in zip(shards, results, strict=True))
    assert sorted(raw_keys(store)) == sorted(keys_of(store)) == planned_keys([1, 2, 3, 4])
    assert is_proved(store)


def test_a_removed_video_is_not_reopened(store: ShardStore) -> None:
    remove(store, [video_id(1)])
    assert retry(store, permanent=True).reopened == 2
    finish(store)
    assert sorted(raw_keys(store)) == planned_keys([0, 2, 3, 4, 5])
    assert is_proved(store)


# ---------------------------------------------------------------- retry


def test_transient_failures_are_computed_anew(place: str) -> None:
    store = new_store(place)
    finish(store, FAULTS)
    report = retry(store)
    assert (report.reopened, report.permanent, report.unprobed) == (1, 2, 0)
    assert store.pending() == [ShardKey(2, 0)] and not count(store).complete and verify(store).clean
    assert {f.video_id for _, f in failures(store)} == {video_id(3), video_id(4)}
    finish(store)
    assert sorted(keys_of(store)) == sorted(
        set(planned_keys(range(6))) - {*planned_keys([4]), (video_id(3), 1_000_000)}
    )
    assert is_proved(store) and retry(store).reopened == 0 and store.generations() == [1, 2]


def test_salvaged_rows_are_replaced_and_never_doubled(place: str) -> None:
    store = new_store(place)
    finish(store, FAULTS)
    seen = [keys_of(store)]
    assert retry(store, permanent=True).reopened == 3
    seen.append(keys_of(store))
    finish(store)
    seen.append(keys_of(store))
    sweep(store)
    seen.append(keys_of(store))
    assert all(len(set(keys)) == len(keys) for keys in seen)
    assert sorted(seen[-1]) == sorted(raw_keys(store)) == planned_keys(range(6))
    assert is_proved(store) and not failures(store)


def test_a_stage_can_be_chosen(store: ShardStore) -> None:
    assert retry(store, stage="model").reopened == 0 and store.generations() == [1]
    assert retry(store, stage="decode").reopened == 1


def test_what_was_never_probed_is_left_to_the_index(tmp_path: Path) -> None:
    store = new_store(str(tmp_path), videos=2, clips=0)
    finish(store, {video_id(0): Fault(stage="probe")})
    report = retry(store)
    assert (report.reopened, report.unprobed) == (0, 1)


def test_a_video_may_fail_again_and_again(store: ShardStore) -> None:
    for generation in (2, 3, 4):
        assert retry(store).reopened == 1
        assert finish(store, FAULTS) == [ShardKey(generation, 0)]
        assert is_proved(store) and len(failures(store)) == 3
    remove(store, [video_id(1)])
    assert is_proved(store) and count(store).tombstoned_rows == 2
    assert sum(f.tombstoned for f in store.footers()) == 2  # accounted for once, where it was planned last
    assert retry(store).reopened == 0


def test_a_generation_added_meanwhile_stops_a_retry(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.store import mend

    def failures_while_another_adds(s: ShardStore) -> object:
        found = failures(s)
        ShardStore.open(s.url).add_plan(dealt([plan_row(50)], 2))
        return found

    monkeypatch.setattr(mend, "failures", failures_while_another_adds)
    with pytest.raises(RetryableError, match="run again"):
        retry(store)
    monkeypatch.undo()
    assert retry(store).reopened == 1 and store.generations() == [1, 2, 3]


def test_a_superseded_video_is_not_reopened(store: ShardStore) -> None:
    store.add_plan(amendment([moved(plan_row(1))]))
    assert retry(store).reopened == 0


def test_a_reopened_video_is_read_where_it_is_now(store: ShardStore) -> None:
    store.add_plan(amendment([moved(plan_row(1, label="mended"), "/now/1.mp4")]))
    retry(store)
    (video,) = store.shard(ShardKey(3, 0)).videos
    assert (video.uri, video.num_clips, video.end_us) == ("/now/1.mp4", 2, 2_000_000)


# ---------------------------------------------------------------- any order

STEPS: dict[str, Callable[[ShardStore], object]] = {
    "remove": lambda s: remove(s, [video_id(1), video_id(3)]),
    "remove other": lambda s: remove(s, [video_id(0)]),
    "retry": retry,
    "retry all": lambda s: retry(s, permanent=True),
    "sweep": sweep,
    "finish": finish,
    "finish badly": lambda s: finish(s, FAULTS),
    "commit one": lambda s: [s.commit(s.shard(k), result_of(s.shard(k), FAULTS)) for k in s.pending()[:1]],
    "relabel": lambda s: s.add_plan(amendment([plan_row(3, label="mended")])),
    "supersede": lambda s: s.add_plan(amendment([moved(plan_row(1))])),
    "restore": lambda s: s.add_plan(amendment([plan_row(1)])),
    "add": lambda s: s.add_plan(dealt([plan_row(100 + len(s.generations()))], 2)),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(is_run=st.booleans(), steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_the_accounts_hold_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, is_run: bool, steps: list[str]
) -> None:
    store = new_store(str(tmp_path_factory.mktemp("any")))
    if is_run:
        finish(store, FAULTS)
    removed: set[str] = set()
    for step in steps:
        STEPS[step](ShardStore.open(store.url))
        removed |= store.tombstones()
        keys = keys_of(store)
        assert len(set(keys)) == len(keys) and not {i for i, _ in keys} & removed
        report = verify(store)
        assert report.clean and report.counts == count(store)
        assert report.counts.rows == len(raw_keys(store))
    finish(store, FAULTS)
    assert is_proved(store)
    planned = {i for p in store.plans() for b in p.batches(["video_id"]) for i in b.column(0).to_pylist()}
    superseded = store.in_force().amendments.superseded
    failed = {f.video_id for _, f in failures(store)}
    assert {i for i, _ in keys_of(store)} >= planned - removed - superseded - failed


# ---------------------------------------------------------------- derive and sweep


def test_derived_columns_follow_the_stored_logits(place: str) -> None:
    store = new_store(place)
    finish(store, FAULTS)
    before = read(store)
    assert derive(store, rederive) == 2
    after = read(store)
    same = ["video_id", "start_us", "end_us", "logits", "decode_ms", "teacher_ms", "damaged", "label"]
    assert after.select(same).equals(before.select(same)) and not after["entropy"].equals(before["entropy"])
    logits_NK = np.array(after["logits"].to_pylist())
    assert after["top1"].to_pylist() == logits_NK.argmax(axis=1).tolist()
    assert is_proved(store) and len(failures(store)) == 3
    derive(store, rederive)
    assert read(store).equals(after)


def test_deriving_may_not_change_a_key(store: ShardStore) -> None:
    def shift(table: pa.Table) -> pa.Table:
        return table.set_column(1, table.schema.field(1), pc.add(table["start_us"], 1))

    before = read(store)
    for bad in (shift, lambda t: t.slice(1)):
        with pytest.raises(StoreError, match="keys"):
            derive(store, bad)
    assert read(store).equals(before)


def test_sweeping_a_clean_store_rewrites_nothing(store: ShardStore) -> None:
    before = {n: store.files.read(f"data/{n}") for n in store.files.list("data")}
    assert sweep(store) == (0, 0)
    assert {n: store.files.read(f"data/{n}") for n in before} == before


def test_sweeping_deletes_old_temporary_files_only(store: ShardStore) -> None:
    for name, days in (("old", 2.0), ("young", 0.0)):
        path = store.files.at(f"{TMP}/{name}")
        Path(path).write_bytes(b"half")
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert sweep(store) == (0, 1) and store.files.list(TMP) == ["young"]


def test_sweeping_mends_what_two_menders_left(store: ShardStore) -> None:
    """One read a shard, another removed a video and rewrote it, the first wrote what it had read."""
    old = store.files.read("data/g0001-000000.parquet")
    remove(store, [video_id(0)])
    store.files.put_over("data/g0001-000000.parquet", old)
    assert verify(store).stale == (ShardKey(1, 0),) and not is_proved(store)
    assert {r["video_id"] for r in shown(store)}.isdisjoint({video_id(0)})
    assert sweep(store)[0] == 1 and is_proved(store)
