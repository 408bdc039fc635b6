"""Read a store: rows that count, with label, split, group and URI joined from the plan.

Rows of removed videos, of videos that a later generation took over, and of superseded ones (every URI now
holds other bytes) are left out. A label corrected in a later generation is the one that is joined.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store import in_force
from pipeline.store.data_files import read_data
from pipeline.store.in_force import Amendments, InForce, without_ids
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError
from schemas.shard import QUARANTINE_SCHEMA, Failure, ShardKey

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

JOINED = ("uri", "label", "split", "group")
_ON_DEMAND = ("file_id",)
_AHEAD = 4


def amendments(store: ShardStore) -> Amendments:
    """What later generations say of videos that were planned before."""
    return in_force.amendments(store.plans())


def scan(
    store: ShardStore, columns: Sequence[str] | None = None, *, generation: int | None = None
) -> Iterator[pa.Table]:
    """One table a shard, in key order, sorted by key within; memory does not grow with the store.

    Of one ``generation`` alone, where it is given.

    ``columns`` may name data columns and ``uri``, ``label``, ``split``, ``group`` (all where not given), and
    ``file_id``. What is shown is what counted when the scan began: no key comes twice, whatever is added or
    reopened meanwhile. Some shards are read ahead, by threads.

    Raises
    ------
    SettingsError
        If there is no such column.
    """
    # Listed before what counts is looked up: a shard of a later reopening is then not read.
    keys = [k for k in sorted(store.committed()) if generation in (None, k.generation)]
    counts = store.in_force()
    waiting: deque[Future[pa.Table]] = deque()
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="locum-read")
    try:
        for key in keys:
            waiting.append(pool.submit(_shard_rows, store, key, columns, counts))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def shard_rows(store: ShardStore, key: ShardKey, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of one shard that count, as `scan` gives them."""
    return _shard_rows(store, key, columns, store.in_force())


def read(store: ShardStore, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows that count, as one Arrow table. See `scan`."""
    tables = list(scan(store, columns))
    if not tables:
        joined = [pa.field(name, pa.string()) for name in (JOINED if store.kind.of_clips else ())]
        empty = pa.schema([*store.kind.data_schema(store.document.spec), *joined]).empty_table()
        _check_columns(store, columns, empty.schema)
        return empty if columns is None else empty.select(list(columns))
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
    """A relation of DuckDB. Half-precision columns become float32: DuckDB does not take the others from Arrow."""
    import duckdb

    table = read(store, columns)
    for at, field in enumerate(table.schema):
        if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float16():
            single = pa.list_(field.type.value_field.with_type(pa.float32()), field.type.list_size)
            table = table.set_column(at, field.with_type(single), table.column(at).cast(single))
    return duckdb.from_arrow(table)


def failures(store: ShardStore) -> list[tuple[ShardKey, Failure]]:
    """Failures that count, from the footers, in key order."""
    footers = list(store.footers())  # read before what counts, as in `scan`
    counts = store.in_force()
    found = []
    for footer in footers:
        hidden = counts.hidden(footer.key.generation, {f.video_id for f in footer.failures})
        found += [(footer.key, f) for f in footer.failures if f.video_id not in hidden]
    return found


def write_quarantine(store: ShardStore) -> int:
    """Rebuild ``quarantine/quarantine.parquet`` from the footers; number of videos in it."""
    rows = [{**f.to_json(), "shard": str(key)} for key, f in failures(store)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, QUARANTINE_SCHEMA), sink, compression="zstd")
    store.files.put_over("quarantine/quarantine.parquet", sink.getvalue())
    return len(rows)


def _shard_rows(store: ShardStore, key: ShardKey, columns: Sequence[str] | None, counts: InForce) -> pa.Table:
    id_column = store.kind.id_column
    joined = [c for c in JOINED if columns is None] + [
        c for c in (*JOINED, *_ON_DEMAND) if c in (columns or ())
    ]
    joined = joined if store.kind.of_clips else []
    wanted = None
    if columns is not None:
        wanted = list(dict.fromkeys([*(c for c in columns if c not in joined), id_column]))
    table, _, schema = read_data(store.files, key, wanted, use_threads=False)
    _check_columns(store, wanted, schema)
    if counts.any_gone(key.generation) or counts.amendments.superseded:
        ids = store.plan(key.generation).clips(key.number)
        table = without_ids(table, id_column, counts.hidden(key.generation, ids))
    if joined:
        table = _join(table, store.plan(key.generation).rows(key.number), joined, counts.amendments)
    return table if columns is None else table.select(list(columns))


def _check_columns(store: ShardStore, columns: Sequence[str] | None, schema: pa.Schema) -> None:
    if absent := [c for c in columns or () if c not in schema.names]:
        there = ", ".join(dict.fromkeys([*schema.names, *(JOINED if store.kind.of_clips else ())]))
        raise SettingsError(f"{store.url} has no column {absent[0]!r}; it has {there}")


def _join(table: pa.Table, plan: pa.Table, names: Sequence[str], amended: Amendments) -> pa.Table:
    """Append what the plan, or the newest amendment, says of each row's video."""
    ids = plan["video_id"].to_pylist()
    at = pc.index_in(table["video_id"], value_set=plan["video_id"].combine_chunks())
    newest = {i: a for i in ids if (a := amended.metadata.get(i)) is not None}
    for name in names:
        said = (
            [u[0] if u else None for u in plan["uris"].to_pylist()]
            if name == "uri"
            else plan[name].to_pylist()
        )
        if newest and name in JOINED:
            said = [getattr(newest[i], name) if i in newest else s for i, s in zip(ids, said, strict=True)]
        table = table.append_column(name, pa.array(said, pa.string()).take(at.combine_chunks()))
    return table
