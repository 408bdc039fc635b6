"""Verify: every way in which a store can be wrong is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.store.data_files import data_name, encode_shard
from pipeline.store.footer import ShardFooter
from pipeline.store.mend import remove, retry, sweep
from pipeline.store.plan_files import plan_name
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count, verify
from schemas.shard import ShardKey
from tests.pipeline.store.stores import (
    Fault,
    amendment,
    dealt,
    finish,
    moved,
    new_store,
    plan_row,
    result_of,
    table_of,
    video_id,
)

KEY = ShardKey(1, 1)
Change = Callable[[pa.Table, ShardFooter], tuple[pa.Table, ShardFooter]]


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    made = new_store(str(tmp_path), videos=9)
    finish(made, {video_id(3): Fault(permanent=True, salvaged=1)})
    assert verify(made, contents=True).clean and count(made).complete
    return made


def rewrite(store: ShardStore, change: Change, key: ShardKey = KEY) -> None:
    data = store.read_data(key)
    table, footer = change(data.table, data.footer)
    store.files.put_over(data_name(key), encode_shard(table, footer))


def with_rows(table: pa.Table, footer: ShardFooter) -> tuple[pa.Table, ShardFooter]:
    """A footer that says as many rows as there are, so that only the plan can tell."""
    return table, replace(footer, rows=table.num_rows)


def stranger(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table_of([("f" * 32, 0, 1_000_000)])])


DAMAGE: dict[str, tuple[Change, str]] = {
    "a gap": (lambda t, f: with_rows(t.slice(1), f), "rows of 2 planned"),
    "a gap that the footer denies": (lambda t, f: (t.slice(1), f), "its footer says 5"),
    "a duplicate": (lambda t, f: with_rows(pa.concat_tables([t.slice(0, 1), t]), f), "there twice"),
    "a stranger row": (lambda t, f: with_rows(stranger(t), f), "not in this shard's plan"),
    "a clip that was not planned": (
        lambda t, f: (t.set_column(2, t.schema.field(2), pc.add(t["end_us"], 1)), f),
        "clips that were not planned",
    ),
    "foreign fingerprint": (lambda t, f: (t, replace(f, fingerprint="f" * 32)), "of fingerprint ffff"),
    "wrong plan hash": (lambda t, f: (t, replace(f, plan_hash="0" * 32)), "another plan"),
    "wrong planned": (lambda t, f: (t, replace(f, planned=f.planned + 1, tombstoned=1)), "the plan 6"),
    "unsorted": (lambda t, f: (t.take(list(reversed(range(t.num_rows)))), f), "not sorted"),
    "not balanced": (lambda t, f: (t, replace(f, tombstoned=1)), "is not 6 planned"),
    "another shard's footer": (
        lambda t, f: (t, replace(f, key=ShardKey(1, 0))),
        "the file of shard g0001-000000",
    ),
    "a failure of a stranger": (
        lambda t, f: (
            t,
            replace(f, failures=(*f.failures, replace(f.failures[0], video_id="f" * 32, missing_rows=0))),
        ),
        "failures of videos that are not",
    ),
    "other columns": (lambda t, f: (t.drop_columns(["energy"]), f), "its columns are not those of the spec"),
    "no key": (lambda t, f: (t.drop_columns(["end_us"]), f), "no column 'end_us'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_each_damage_is_named(store: ShardStore, what: str) -> None:
    change, words = DAMAGE[what]
    rewrite(store, change)
    report = verify(store)
    assert not report.clean
    assert any("g0001-000001" in p and words in p for p in report.problems), report.problems


def test_a_truncated_file_is_named_and_the_rest_counted(place: str) -> None:
    store = new_store(place, videos=9)
    finish(store)
    body = store.files.read(data_name(KEY))
    for keep in (0, 3, 100, -4):
        store.files.put_over(data_name(KEY), body[:keep])
        report = verify(store)
        assert [p for p in report.problems if "g0001-000001" in p] == list(report.problems) != []
        assert (report.counts.rows, report.counts.pending_shards) == (12, 1)


def test_a_flipped_bit_in_any_column_is_found_by_the_checksums(store: ShardStore) -> None:
    clean = store.files.read(data_name(KEY))
    group = pq.read_metadata(pa.BufferReader(clean)).row_group(0)
    for number in range(group.num_columns):
        column, body = group.column(number), bytearray(clean)
        body[column.data_page_offset + column.total_compressed_size - 1] ^= 4
        store.files.put_over(data_name(KEY), bytes(body))
        assert not verify(store, contents=True).clean, column.path_in_schema


def test_a_stranger_file_is_named(store: ShardStore) -> None:
    body = store.files.read(data_name(KEY))
    for name in (
        "g0001-000003.parquet",
        "g0002-000000.parquet",
        "notes.txt",
        "g0001-1.parquet",
        "g1-000001.parquet",
    ):
        store.files.put_new(f"data/{name}", body)
        report = verify(store)
        assert [p for p in report.problems if name in p], (name, report.problems)
        store.files.delete(f"data/{name}")
    assert verify(store).clean


def test_a_lost_file_is_pending_not_wrong(store: ShardStore) -> None:
    store.files.delete(data_name(KEY))
    report = verify(store)
    assert report.clean and not report.counts.complete and store.pending() == [KEY]
    finish(store)
    assert verify(store).clean and count(store).complete


def test_rows_that_a_late_writer_brings_back_are_stale_then_swept(place: str) -> None:
    store = new_store(place, videos=9)
    late, shard = ShardStore.open(store.url), store.shard(KEY)
    finish(store)
    body = store.files.read(data_name(KEY))
    remove(store, [video_id(3)])
    store.files.put_over(data_name(KEY), body)  # as if a writer had looked for tombstones just before
    report = verify(late)
    assert report.stale == (KEY,) and not report.problems and not report.clean
    assert video_id(3) in {v.video_id for v in shard.videos}
    sweep(store)
    assert verify(store).clean and count(store).complete
    assert store.read_data(KEY).footer.tombstoned == 2


def test_a_missing_generation_is_a_problem(store: ShardStore) -> None:
    for n in (20, 21):
        store.add_plan(dealt([plan_row(n)], 2))
    store.files.delete(plan_name(2))
    report = verify(ShardStore.open(store.url))
    assert not report.clean and "generations [1, 3]" in report.problems[0]


def test_the_last_generation_missing_leaves_strangers(store: ShardStore) -> None:
    store.add_plan(dealt([plan_row(20)], 2))
    finish(store)
    store.files.delete(plan_name(2))
    report = verify(ShardStore.open(store.url))
    assert ["g0002-000000" in p for p in report.problems] == [True]


def test_a_damaged_plan_is_a_problem(store: ShardStore) -> None:
    store.files.put_over(plan_name(1), b"PAR1")
    assert not verify(ShardStore.open(store.url)).clean


def test_a_plan_put_in_place_of_another_is_found(store: ShardStore, tmp_path: Path) -> None:
    other = new_store(str(tmp_path / "other"), videos=9)
    store.files.put_over(plan_name(1), other.files.read(plan_name(1)))
    problems = verify(ShardStore.open(store.url)).problems
    assert len(problems) == 3 and all("another plan" in p for p in problems)


@pytest.mark.parametrize("reopens", [False, True])
def test_a_video_planned_wrongly_is_named(store: ShardStore, reopens: bool) -> None:
    """Twice without being reopened, or reopened without having been planned."""
    number = 50 if reopens else 3
    store.add_plan(dealt([plan_row(number)], 2), reopens=reopens)
    assert [p for p in verify(store).problems if video_id(number) in p]


def test_counts_follow_the_plan(store: ShardStore) -> None:
    c = count(store)
    assert (c.videos, c.planned, c.rows, c.quarantined_rows, c.tombstoned_rows) == (9, 18, 17, 1, 0)
    assert (c.shards, c.pending_shards, c.quarantined_videos, c.damaged_rows) == (3, 0, 1, 1)
    assert verify(store).counts == c
    remove(store, [video_id(3), video_id(0)])
    c = count(store)
    assert (c.rows, c.quarantined_rows, c.tombstoned_rows, c.complete) == (14, 0, 4, True)
    store.add_plan([*dealt([plan_row(9, uris=["/v/4.mp4"])], 2), *amendment([moved(plan_row(4))])])
    c = count(store)
    assert (c.videos, c.planned, c.superseded_videos, c.complete) == (10, 20, 1, False)
    finish(store)
    assert count(store).complete and verify(store).counts == count(store)


def test_counts_are_right_before_the_shards_are_rewritten(
    store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: the fact is written, the files are not."""
    from pipeline.store import mend

    def leave(*_: Any) -> int:
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(mend, "_drop_gone", leave)
        remove(store, [video_id(0)])
        assert (count(store).rows, count(store).tombstoned_rows, count(store).complete) == (15, 2, True)
        assert retry(store, permanent=True).reopened == 1
        c = count(store)
        assert (c.rows, c.quarantined_rows, c.tombstoned_rows, c.planned, c.complete) == (14, 0, 2, 18, False)
        finish(store)
    c = count(store)
    assert (c.rows, c.tombstoned_rows, c.planned, c.complete) == (16, 2, 18, True)
    assert len(verify(store).stale) == 2
    sweep(store)
    assert verify(store).clean and count(store) == replace(c, data_bytes=count(store).data_bytes)


def test_nothing_is_wrong_with_a_shard_of_which_all_is_gone(store: ShardStore) -> None:
    remove(store, [video_id(n) for n in range(9)])
    assert verify(store, contents=True).clean and count(store).complete and count(store).rows == 0


def test_a_shard_computed_after_its_video_was_removed_is_clean(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    remove(store, [video_id(0)])
    shard = store.shard(ShardKey(1, 0))
    store.commit(shard, result_of(shard))
    finish(store)
    assert verify(store).clean and count(store).complete and count(store).tombstoned_rows == 2
