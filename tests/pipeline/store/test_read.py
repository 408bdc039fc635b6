"""Reading: labels joined, what no longer counts left out, and the files readable by anyone without our help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store import mend
from pipeline.store.mend import remove, retry, sweep
from pipeline.store.read import read, scan, to_duckdb, to_pandas, to_polars, write_quarantine
from pipeline.store.shard_store import ShardStore
from schemas.errors import CorruptStoreError, SettingsError
from schemas.shard import QUARANTINE_SCHEMA
from tests.pipeline.store.stores import (
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
    shown,
    table_of,
    video_id,
)


@pytest.fixture(params=["float16", "float32"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ShardStore:
    made = new_store(str(tmp_path), videos=7, dtype=request.param)
    finish(made)
    return made


def expected_logits(table: pa.Table, dtype: str) -> np.ndarray:
    keys = zip(*(table[c].to_pylist() for c in ("video_id", "start_us", "end_us")), strict=True)
    return logits_of(table_of(list(keys), dtype))


def logits_of(table: pa.Table) -> np.ndarray:
    return np.array(table["logits"].to_pylist(), np.float64)


def test_each_row_has_its_videos_words(store: ShardStore) -> None:
    rows = shown(store)
    assert [(r["video_id"], r["start_us"]) for r in rows] == planned_keys(range(7))
    about = {video_id(n): (f"/v/{n}.mp4", f"label{n % 3}", "train", f"g{n}") for n in range(7)}
    assert all((r["uri"], r["label"], r["split"], r["group"]) == about[r["video_id"]] for r in rows)


def test_every_reader_gives_the_same_rows(store: ShardStore) -> None:
    table = read(store)
    assert to_polars(store).to_arrow()["start_us"].to_pylist() == table["start_us"].to_pylist()
    assert to_pandas(store)["label"].tolist() == table["label"].to_pylist()
    relation = to_duckdb(store).order("video_id, start_us").select("video_id, logits").fetchall()
    by_key = table.sort_by([("video_id", "ascending"), ("start_us", "ascending")])
    assert [r[0] for r in relation] == by_key["video_id"].to_pylist()
    np.testing.assert_array_equal(np.array([list(r[1]) for r in relation], np.float64), logits_of(by_key))
    np.testing.assert_array_equal(np.stack(to_pandas(store)["logits"]).astype(np.float64), logits_of(table))
    np.testing.assert_array_equal(
        np.stack(to_polars(store)["logits"].to_numpy()).astype(np.float64), logits_of(table)
    )


def test_others_read_the_files_by_themselves(store: ShardStore) -> None:
    """DuckDB and Polars by a glob, pandas by the folder; also half-precision logits."""
    glob = store.files.at("data/*.parquet")
    own = read(store).sort_by([("video_id", "ascending"), ("start_us", "ascending")])
    expected, ids = logits_of(own), own["video_id"].to_pylist()
    dtype = "float16" if own.schema.field("logits").type.value_type == pa.float16() else "float32"
    np.testing.assert_array_equal(expected, expected_logits(own, dtype))
    ordered = duckdb.sql(f"select video_id, logits from '{glob}' order by video_id, start_us").fetchall()
    assert [r[0] for r in ordered] == ids
    np.testing.assert_array_equal(np.array([list(r[1]) for r in ordered], np.float64), expected)
    lazy = pl.scan_parquet(glob).sort("video_id", "start_us").collect()
    assert lazy["video_id"].to_list() == ids
    np.testing.assert_array_equal(np.array(lazy["logits"].to_list(), np.float64), expected)
    frame = pd.read_parquet(store.files.at("data")).sort_values(["video_id", "start_us"])
    assert frame["video_id"].tolist() == ids
    np.testing.assert_array_equal(np.stack(frame["logits"]).astype(np.float64), expected)


def test_columns_come_as_asked(place: str) -> None:
    store = new_store(place)
    finish(store)
    assert read(store, ["label", "start_us"]).column_names == ["label", "start_us"]
    assert read(store, ["label"])["label"].to_pylist() == read(store)["label"].to_pylist()
    assert read(store, ["entropy", "start_us"]).equals(read(store).select(["entropy", "start_us"]))
    with pytest.raises(SettingsError, match="no column 'nope'; it has video_id"):
        read(store, ["nope"])


def test_a_store_of_nothing_reads_as_nothing(tmp_path: Path) -> None:
    store = empty_store(str(tmp_path))
    store.add_plan(dealt([plan_row(0)], 2))
    empty, some = read(store), read(store, ["label", "start_us"])
    assert (empty.num_rows, some.num_rows) == (0, 0)
    with pytest.raises(SettingsError, match="no column 'nope'"):
        read(store, ["nope"])
    finish(store)
    assert read(store).schema.equals(empty.schema) and read(store, ["label", "start_us"]).schema.equals(
        some.schema
    )


def test_removed_videos_are_not_shown_even_where_their_rows_stand(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    finish(store)
    before = {n: store.files.read(f"data/{n}") for n in store.files.list("data")}
    remove(store, [video_id(2)])
    for name, body in before.items():
        store.files.put_over(f"data/{name}", body)
    assert sorted(keys_of(store)) == planned_keys([0, 1, 3, 4, 5])
    assert read(store, ["video_id"]).num_rows == 10


def test_the_newest_word_on_a_video_is_joined(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    finish(store)
    store.add_plan(amendment([moved(plan_row(1, label="new", split="test"), "/now/1.mp4")]))
    about = {r["video_id"]: (r["uri"], r["label"], r["split"], r["group"]) for r in shown(store)}
    assert about[video_id(1)] == ("/now/1.mp4", "new", "test", "g1")
    assert about[video_id(2)] == ("/v/2.mp4", "label2", "train", "g2")
    store.add_plan(amendment([plan_row(1, label="newer")]))
    assert {r["label"] for r in shown(store) if r["video_id"] == video_id(1)} == {"newer"}


def test_a_superseded_video_is_not_shown_until_it_is_back(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    finish(store)
    store.add_plan([*dealt([plan_row(7, uris=["/v/1.mp4"])], 2), *amendment([moved(plan_row(1))])])
    finish(store)
    assert sorted(keys_of(store)) == planned_keys([0, 2, 3, 4, 5, 7])
    assert {r["uri"] for r in shown(store) if r["video_id"] == video_id(7)} == {"/v/1.mp4"}
    store.add_plan(amendment([moved(plan_row(1, label="back"), "/other/1.mp4")]))
    assert sorted(keys_of(store)) == planned_keys([0, 1, 2, 3, 4, 5, 7])
    assert {r["label"] for r in shown(store) if r["video_id"] == video_id(1)} == {"back"}


def test_a_label_mended_before_a_retry_stays_mended(tmp_path: Path) -> None:
    store = new_store(str(tmp_path))
    finish(store, {video_id(1): Fault()})
    store.add_plan(amendment([plan_row(1, label="mended")]))
    assert retry(store).reopened == 1
    finish(store)
    assert sorted(keys_of(store)) == planned_keys(range(6))
    assert {r["label"] for r in shown(store) if r["video_id"] == video_id(1)} == {"mended"}
    store.add_plan(amendment([plan_row(1, label="again")]))
    assert {r["label"] for r in shown(store) if r["video_id"] == video_id(1)} == {"again"}


def test_no_key_comes_twice_however_a_scan_and_a_retry_meet(tmp_path: Path) -> None:
    """A scan that began before, while its shards are reopened, recomputed and swept under it."""
    numbers = range(12)
    store = new_store(str(tmp_path), videos=12, shard_clips=2)
    finish(store, {video_id(n): Fault(permanent=True, salvaged=1) for n in (0, 5, 11)})

    def rows(tables: Iterator[pa.Table]) -> list[tuple[str, int]]:
        return [
            k for t in tables for k in zip(t["video_id"].to_pylist(), t["start_us"].to_pylist(), strict=True)
        ]

    scanning = scan(ShardStore.open(store.url))
    seen = rows(iter([next(scanning)]))
    assert retry(store, permanent=True).reopened == 3
    seen_between = keys_of(store)
    finish(store)
    seen_after = keys_of(store)
    sweep(store)
    seen += rows(scanning)
    for keys in (seen, seen_between, seen_after, keys_of(store)):
        assert len(set(keys)) == len(keys)
    whole = planned_keys(set(numbers) - {0, 5, 11})
    assert set(whole) <= set(seen) and sorted(seen_between) == whole
    assert sorted(seen_after) == sorted(keys_of(store)) == planned_keys(numbers)


def test_a_retry_between_the_first_looks_of_a_scan_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever a scan looks at first, what is committed or what counts, another process acts right after; it is
    killed before it rewrites the shards that it reopened."""
    store = new_store(str(tmp_path))
    finish(store, {video_id(1): Fault(permanent=True, salvaged=1)})
    acted = []

    def then_act(look: Callable[[], Any]) -> Callable[[], Any]:
        def looking() -> Any:
            seen = look()
            if not acted:
                acted.append(True)
                other = ShardStore.open(store.url)
                with monkeypatch.context() as patch:
                    patch.setattr(mend, "_drop_gone", lambda *_: 0)
                    retry(other, permanent=True)
                finish(other)
            return seen

        return looking

    monkeypatch.setattr(store, "committed", then_act(store.committed))
    monkeypatch.setattr(store, "in_force", then_act(store.in_force))
    keys = keys_of(store)
    assert acted and len(set(keys)) == len(keys)
    assert sorted(keys_of(store)) == planned_keys(range(6))


def test_a_scan_given_up_early_ends(tmp_path: Path) -> None:
    store = new_store(str(tmp_path), videos=20, shard_clips=2)
    finish(store)
    scanning = scan(store)
    next(scanning)
    scanning.close()  # type: ignore[attr-defined]
    assert len(list(scan(store))) == 20


def test_a_damaged_file_is_never_passed_over(place: str) -> None:
    store = new_store(place)
    finish(store)
    body = store.files.read("data/g0001-000001.parquet")
    store.files.put_over("data/g0001-000001.parquet", body[: len(body) // 2])
    with pytest.raises(CorruptStoreError, match="g0001-000001"):
        read(store)


def test_the_quarantine_file_lists_what_counts(place: str) -> None:
    store = new_store(place)
    finish(store, {video_id(1): Fault(), video_id(4): Fault(permanent=True, salvaged=1)})
    assert write_quarantine(store) == 2
    remove(store, [video_id(1)])
    assert write_quarantine(store) == 1
    listed = pq.read_table(pa.BufferReader(store.files.read("quarantine/quarantine.parquet")))
    assert listed.schema.equals(QUARANTINE_SCHEMA)
    assert listed.select(["video_id", "permanent", "missing_rows", "damaged_rows"]).to_pylist() == [
        {"video_id": video_id(4), "permanent": True, "missing_rows": 1, "damaged_rows": 1}
    ]
