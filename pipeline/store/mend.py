"""Change a store that exists: remove videos, reopen failed ones, recompute derived columns, sweep.

Each change first writes the durable fact (a tombstone, a plan generation), then rewrites the shards it touches. A
process that dies in between leaves a store whose readers already see the change; `sweep` finishes it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.plan import ShardFiller
from pipeline.store.footer import ShardFooter
from pipeline.store.read import failures, write_quarantine
from pipeline.store.shard_store import (
    TOMBSTONES_FOLDER,
    ShardStore,
    data_name,
    encode_shard,
    library_versions,
    without_ids,
)
from pipeline.store.verify import verify
from schemas.errors import RetryableError, SettingsError
from schemas.shard import ShardKey

STALE_TMP_SECONDS = 24 * 3600.0
_FAILED_WHILE_PROBED = ("open", "probe")


@dataclass(frozen=True)
class RetryReport:
    """``reopened`` videos are planned anew; ``unprobed`` failed before they were planned: retry the videos store."""

    reopened: int
    unprobed: int
    permanent: int


def remove(store: ShardStore, ids: Collection[str], reason: str = "") -> int:
    """Remove videos for good: tombstone, then rewrite their shards. Number of rows that went.

    Raises
    ------
    SettingsError
        If an id is not one of the store's.
    """
    unknown = set(ids) - _known_ids(store)
    if unknown:
        raise SettingsError(f"{store.url} has no video {sorted(unknown)[0]}" + _and_more(len(unknown) - 1))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = {"ids": sorted(ids), "reason": reason, "at": now}
    store.files.put_new(f"{TOMBSTONES_FOLDER}/{uuid.uuid4().hex}.json", json.dumps(body).encode())
    return sum(_drop_gone(store, key) for key in _shards_of(store, set(ids)))


def sweep(store: ShardStore) -> tuple[int, int]:
    """Finish what was interrupted: drop rows that no longer count, delete old temporary files, rebuild quarantine.

    Returns the number of shards rewritten and of temporary files deleted.
    """
    stale = verify(store).stale
    for key in stale:
        _drop_gone(store, key)
    swept = store.files.sweep_tmp(STALE_TMP_SECONDS)
    write_quarantine(store)
    return len(stale), swept


def retry(store: ShardStore, *, stage: str | None = None, permanent: bool = False, shard_clips: int = 256) -> RetryReport:
    """Plan failed videos anew, as a generation of their own.

    Transient failures by default; with ``permanent`` also damaged files (after an upgrade of the decoder, say),
    whose salvaged rows are then replaced.

    Raises
    ------
    RetryableError
        If another process added a generation at the same moment.
    """
    chosen: set[str] = set()
    unprobed = left = 0
    for _, failure in failures(store):
        if stage is not None and failure.stage != stage:
            continue
        if failure.permanent and not permanent:
            left += 1
        elif store.kind.name == "targets" and failure.stage in _FAILED_WHILE_PROBED and not failure.missing_rows:
            unprobed += 1
        else:
            chosen.add(failure.video_id)
    if chosen:
        _reopen(store, chosen, shard_clips)
    return RetryReport(len(chosen), unprobed, left)


def derive(store: ShardStore, recompute: Callable[[pa.Table], pa.Table]) -> int:
    """Rewrite every shard through ``recompute`` (rows in, as many rows of the same keys out). Shards rewritten."""
    keys = sorted(store.committed())
    for key in keys:
        _rewrite(store, key, lambda table, footer: (recompute(table), footer))
    return len(keys)


def _reopen(store: ShardStore, ids: set[str], shard_clips: int) -> None:
    rows: dict[str, pa.Table] = {}
    for plan in store.plans():  # a later generation's row replaces an earlier one's
        for batch in plan.batches():
            mask = pc.is_in(batch[store.kind.id_column], value_set=pa.array(sorted(ids)))
            for row in pa.Table.from_batches([batch.filter(mask)]).to_batches():
                for i, video in enumerate(row[store.kind.id_column].to_pylist()):
                    kept = rows.get(video)
                    slice_ = pa.Table.from_batches([row.slice(i, 1)])
                    clips = slice_["clips"][0].as_py() or (kept["clips"][0].as_py() if kept is not None else 0)
                    rows[video] = _with_clips(slice_, clips)
    table = pa.concat_tables(rows.values()).sort_by(store.kind.id_column)
    shards = ShardFiller(shard_clips).assign(table["clips"].to_numpy())
    table = table.set_column(table.schema.get_field_index("shard"), store.kind.plan_schema.field("shard"), pa.array(shards))
    table = table.cast(store.kind.plan_schema)
    if store.add_plan(table.to_batches(), reopens=True, notes={"retry": True}) is None:
        raise RetryableError(f"{store.url}: another process added a generation at the same moment; run again")
    for key in _shards_of(store, ids, before=len(store.generations())):
        _drop_gone(store, key)


def _with_clips(row: pa.Table, clips: int) -> pa.Table:
    at = row.schema.get_field_index("clips")
    return row.set_column(at, row.schema.field("clips"), pa.array([clips], pa.int32()))


def _drop_gone(store: ShardStore, key: ShardKey) -> int:
    """Rewrite one shard without the rows that no longer count. Number of rows that went."""
    planned = store.plan(key.generation).rows(key.number, [store.kind.id_column, "clips"])
    clips = dict(zip(planned[store.kind.id_column].to_pylist(), planned["clips"].to_pylist(), strict=True))
    removed = store.tombstones() & clips.keys()
    reopened = (store.reopened_after(key.generation) & clips.keys()) - removed
    gone = removed | reopened
    dropped = 0

    def drop(table: pa.Table, footer: ShardFooter) -> tuple[pa.Table, ShardFooter]:
        nonlocal dropped
        kept = without_ids(table, store.kind.id_column, gone)
        dropped = table.num_rows - kept.num_rows
        return kept, replace(
            footer,
            failures=tuple(f for f in footer.failures if f.video_id not in gone),
            tombstoned=sum(clips[i] for i in removed),
            reopened=sum(clips[i] for i in reopened),
        )

    _rewrite(store, key, drop)
    return dropped


def _rewrite(
    store: ShardStore, key: ShardKey, change: Callable[[pa.Table, ShardFooter], tuple[pa.Table, ShardFooter]]
) -> None:
    parquet, footer = store.open_data(key)
    table = parquet.read().replace_schema_metadata(None)
    parquet.close(force=True)
    table, footer = change(table, footer)
    footer = replace(footer, rows=table.num_rows, versions={**footer.versions, "rewritten_with": json.dumps(library_versions())})
    store.files.put_over(data_name(key), encode_shard(table, footer))


def _shards_of(store: ShardStore, ids: set[str], before: int | None = None) -> list[ShardKey]:
    """Committed shards in which one of ``ids`` was planned, of generations under ``before``."""
    found: set[ShardKey] = set()
    wanted = pa.array(sorted(ids))
    for plan in store.plans():
        if before is not None and plan.generation >= before:
            continue
        for batch in plan.batches([store.kind.id_column, "shard"]):
            numbers: Iterable[int] = batch.filter(pc.is_in(batch.column(0), value_set=wanted)).column("shard").to_pylist()
            found.update(ShardKey(plan.generation, n) for n in numbers if n >= 0)
    return sorted(found & store.committed())


def _known_ids(store: ShardStore) -> set[str]:
    ids: set[str] = set()
    for plan in store.plans():
        for batch in plan.batches([store.kind.id_column]):
            ids.update(batch.column(0).to_pylist())
    return ids


def _and_more(n: int) -> str:
    return f" (and {n} more)" if n else ""
