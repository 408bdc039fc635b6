"""Read a store: rows that count, with label, split, group and URI joined from the plan.

Rows of removed videos, of videos that a later generation took over, and of superseded ones (every URI now holds
other bytes) are left out. A label corrected in a later generation is the one that is joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.shard_store import ShardStore, without_ids
from schemas.shard import QUARANTINE_SCHEMA, Failure, ShardKey

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

JOINED = ("uri", "label", "split", "group")


@dataclass(frozen=True)
class Amendments:
    """What later generations say of videos that were planned before: newest first wins."""

    metadata: dict[str, tuple[Any, ...]]  # id -> (uri, label, split, group)
    superseded: frozenset[str]


def amendments(store: ShardStore) -> Amendments:
    """Rows with nothing to compute (shard -1) in generations after the first."""
    metadata: dict[str, tuple[Any, ...]] = {}
    superseded: set[str] = set()
    if "uris" not in store.kind.plan_schema.names:
        return Amendments({}, frozenset())
    columns = ["video_id", "uris", "label", "split", "group", "shard"]
    for plan in store.plans()[1:]:
        for batch in plan.batches(columns):
            for row in batch.to_pylist():
                superseded.discard(row["video_id"])
                metadata.pop(row["video_id"], None)
                if row["uris"]:
                    if row["shard"] < 0:
                        metadata[row["video_id"]] = (row["uris"][0], row["label"], row["split"], row["group"])
                else:
                    superseded.add(row["video_id"])
    return Amendments(metadata, frozenset(superseded))


def scan(store: ShardStore, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """One table a shard, in key order, sorted by key within; memory does not grow with the store.

    ``columns`` may name data columns and ``uri``, ``label``, ``split``, ``group``; all where not given.
    """
    amended = amendments(store)
    tombstones = store.tombstones()
    hidden = {p.generation: tombstones | store.reopened_after(p.generation) | amended.superseded for p in store.plans()}
    for key in sorted(store.committed()):
        yield _shard_rows(store, key, columns, hidden.get(key.generation, frozenset()), amended)


def read(store: ShardStore, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows that count, as one Arrow table. See `scan`."""
    tables = list(scan(store, columns))
    if not tables:
        return pa.table({name: pa.array([], pa.null()) for name in columns or ()})
    return pa.concat_tables(tables)


def to_pandas(store: ShardStore, columns: Sequence[str] | None = None) -> pd.DataFrame:
    return read(store, columns).to_pandas()


def to_polars(store: ShardStore, columns: Sequence[str] | None = None) -> pl.DataFrame:
    import polars

    frame = polars.from_arrow(read(store, columns))
    if not isinstance(frame, polars.DataFrame):
        raise TypeError(f"expected a DataFrame from polars, got {type(frame).__name__}")
    return frame


def to_duckdb(store: ShardStore, columns: Sequence[str] | None = None) -> duckdb.DuckDBPyRelation:
    import duckdb

    return duckdb.from_arrow(read(store, columns))


def failures(store: ShardStore) -> list[tuple[ShardKey, Failure]]:
    """Failures that count, from the footers, in key order."""
    tombstones, superseded = store.tombstones(), amendments(store).superseded
    hidden = {p.generation: tombstones | store.reopened_after(p.generation) | superseded for p in store.plans()}
    return [
        (footer.key, f)
        for footer in store.footers()
        for f in footer.failures
        if f.video_id not in hidden.get(footer.key.generation, ())
    ]


def write_quarantine(store: ShardStore) -> int:
    """Rebuild ``quarantine/quarantine.parquet`` from the footers; number of videos in it."""
    import io

    rows = [{**f.to_json(), "shard": str(key)} for key, f in failures(store)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, QUARANTINE_SCHEMA), sink, compression="zstd")
    store.files.put_over("quarantine/quarantine.parquet", sink.getvalue())
    return len(rows)


def _shard_rows(
    store: ShardStore, key: ShardKey, columns: Sequence[str] | None, hidden: frozenset[str], amended: Amendments
) -> pa.Table:
    id_column = store.kind.id_column
    parquet, _ = store.open_data(key)
    joined = [] if store.kind.name != "targets" else [c for c in JOINED if columns is None or c in columns]
    own = None if columns is None else [c for c in columns if c not in joined]
    wanted = None if own is None else [*dict.fromkeys([*own, id_column])]
    table = without_ids(parquet.read(columns=wanted), id_column, hidden)
    parquet.close(force=True)
    table = table.replace_schema_metadata(None)
    if joined:
        plan = store.plan(key.generation).rows(key.number, ["video_id", "uris", "label", "split", "group"])
        about = {
            r["video_id"]: (r["uris"][0] if r["uris"] else None, r["label"], r["split"], r["group"])
            for r in plan.to_pylist()
        }
        about |= {i: amended.metadata[i] for i in about.keys() & amended.metadata.keys()}
        ids = table[id_column].to_pylist()
        for name in joined:
            at = JOINED.index(name)
            table = table.append_column(name, pa.array([about[i][at] for i in ids], pa.string()))
    return table if columns is None else table.select(list(columns))


