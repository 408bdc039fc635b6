"""Change a store that exists: remove videos, reopen failed ones, recompute derived columns, sweep.

Each change first writes the durable fact (a tombstone, a plan generation), then rewrites the shards it
touches. A process that dies in between leaves a store whose readers already see the change; `sweep` finishes
it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.plan import ShardFiller
from pipeline.store.data_files import data_name, encode_shard
from pipeline.store.document import library_versions, now
from pipeline.store.footer import ShardFooter
from pipeline.store.in_force import without_ids
from pipeline.store.read import failures, write_quarantine
from pipeline.store.shard_store import TOMBSTONES_FOLDER, ShardStore
from pipeline.store.verify import verify
from schemas.errors import RetryableError, SettingsError, StoreError
from schemas.shard import ShardKey

STALE_TMP_SECONDS = 24 * 3600.0
_AMENDED = ("uris", "label", "split", "group")
_FAILED_WHILE_PROBED = ("open", "probe")


@dataclass(frozen=True)
class RetryReport:
    """``reopened`` videos are planned anew; ``unprobed`` failed in the index: retry the videos store."""

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
    unknown = _unknown(store, set(ids))
    if unknown:
        raise SettingsError(f"{store.url} has no video {unknown[0]}" + _and_more(len(unknown) - 1))
    new = sorted(set(ids) - store.tombstones())
    if new:
        body = {"ids": new, "reason": reason, "at": now()}
        store.files.put_new(f"{TOMBSTONES_FOLDER}/{uuid.uuid4().hex}.json", json.dumps(body).encode())
    return sum(_drop_gone(store, key) for key in _shards_of(store, set(ids)))


def sweep(store: ShardStore) -> tuple[int, int]:
    """Finish what was interrupted: drop what no longer counts, delete old temporary files, list quarantine.

    Returns the number of shards rewritten and of temporary files deleted.
    """
    stale = verify(store).stale
    for key in stale:
        _drop_gone(store, key)
    swept = store.files.sweep_tmp(STALE_TMP_SECONDS)
    write_quarantine(store)
    return len(stale), swept


def retry(
    store: ShardStore,
    *,
    stage: str | None = None,
    permanent: bool = False,
    only: Collection[str] | None = None,
    shard_clips: int = 256,
) -> RetryReport:
    """Plan failed videos anew, as a generation of their own; of these ids alone, with ``only``.

    Transient failures by default; with ``permanent`` also damaged files (after an upgrade of the decoder,
    say), whose salvaged rows are then replaced.

    Raises
    ------
    RetryableError
        If another process added a generation at the same moment.
    """
    chosen: set[str] = set()
    unprobed = left = 0
    # Before the failures are read: if a generation comes in between, nothing is added.
    after = len(store.plans())
    for _, failure in failures(store):
        if stage is not None and failure.stage != stage:
            continue
        if only is not None and failure.video_id not in only:
            continue
        if failure.permanent and not permanent:
            left += 1
        elif store.kind.of_clips and failure.stage in _FAILED_WHILE_PROBED and not failure.missing_rows:
            unprobed += 1
        else:
            chosen.add(failure.video_id)
    if chosen:
        _reopen(store, chosen, shard_clips, after)
    return RetryReport(len(chosen), unprobed, left)


def derive(store: ShardStore, recompute: Callable[[pa.Table], pa.Table]) -> int:
    """Pass every shard through ``recompute`` (rows in, as many rows of the same keys out). Number of shards.

    Raises
    ------
    StoreError
        If ``recompute`` changed a key; the shards before that one are rewritten.
    """

    def change(table: pa.Table, footer: ShardFooter) -> tuple[pa.Table, ShardFooter]:
        derived, keys = recompute(table), list(store.kind.sort_columns)
        if not derived.select(keys).equals(table.select(keys)):
            raise StoreError(f"{store.url}: shard {footer.key}: the keys of its rows are not to be changed")
        return derived, footer

    keys = sorted(store.committed())
    for key in keys:
        _rewrite(store, key, change)
    return len(keys)


def _reopen(store: ShardStore, ids: set[str], shard_clips: int, after: int) -> None:
    rows: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for plan in store.plans():
        for batch in plan.batches():
            for row in batch.filter(pc.is_in(batch[plan.id_column], value_set=wanted)).to_pylist():
                before = rows.get(row[plan.id_column])
                if before is not None and row["shard"] < 0:  # it amends: what its work was does not change
                    row = {**before, **{name: row[name] for name in _AMENDED if name in row}}
                rows[row[plan.id_column]] = row
    table = pa.Table.from_pylist([rows[i] for i in sorted(rows)], store.kind.plan_schema)
    shards = pa.array(ShardFiller(shard_clips).assign(table["clips"].to_numpy()))
    table = table.set_column(
        table.schema.get_field_index("shard"), store.kind.plan_schema.field("shard"), shards
    )
    added = store.add_plan(table.to_batches(), reopens=True, notes={"retry": True}, after=after)
    if added is None:
        raise RetryableError(f"{store.url}: another process added a generation at the same moment; run again")
    for key in _shards_of(store, ids):
        if key.generation < added.generation:
            _drop_gone(store, key)


def _drop_gone(store: ShardStore, key: ShardKey) -> int:
    """Rewrite one shard without the rows that no longer count. Number of rows that went."""
    clips = store.plan(key.generation).clips(key.number)
    removed, reopened = store.in_force().split(key.generation, clips)
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
    before, old_footer, _ = store.read_data(key)
    table, footer = change(before, old_footer)
    if table.equals(before) and footer == old_footer:
        return
    versions = {**footer.versions, "rewritten_with": json.dumps(library_versions())}
    footer = replace(footer, rows=table.num_rows, versions=versions, writer=uuid.uuid4().hex)
    store.files.put_over(data_name(key), encode_shard(table, footer))


def _shards_of(store: ShardStore, ids: set[str]) -> list[ShardKey]:
    """Committed shards in which one of ``ids`` was planned."""
    found: set[ShardKey] = set()
    wanted = pa.array(sorted(ids), pa.string())
    for plan in store.plans():
        for batch in plan.batches([plan.id_column, "shard"]):
            numbers = batch.filter(pc.is_in(batch[plan.id_column], value_set=wanted))["shard"].to_pylist()
            found.update(ShardKey(plan.generation, n) for n in numbers if n >= 0)
    return sorted(found & store.committed())


def _unknown(store: ShardStore, ids: set[str]) -> list[str]:
    left = set(ids)
    wanted = pa.array(sorted(ids), pa.string())
    for plan in store.plans():
        for batch in plan.batches([plan.id_column]):
            left.difference_update(
                batch.column(0).filter(pc.is_in(batch.column(0), value_set=wanted)).to_pylist()
            )
    return sorted(left)


def _and_more(n: int) -> str:
    return f" (and {n} more)" if n else ""
