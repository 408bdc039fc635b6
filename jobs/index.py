"""Index: find the videos, name them by content, probe them. Resumable; running again looks for what is new.

The index is a store of kind *videos*, beside the target stores of the same ``out`` folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import build_catalog, item_ids, sampled_collisions, true_file_ids
from pipeline.frames import NoFrames
from pipeline.identity import item_id
from pipeline.manifest import read_entries
from pipeline.plan import ShardFiller, auto_shard_clips, stratified_sample
from pipeline.runner import LocalRunner, OnProgress, RunSettings, RunSummary
from pipeline.store.kinds import VIDEOS
from pipeline.store.read import failures, read, write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.probe import ProbeTask
from schemas.errors import RetryableError, SettingsError
from schemas.spec import fingerprint_of
from schemas.video import ENTRIES_SCHEMA

PROBE_EPOCH = 1
"""Raised by hand when probing or identity changes what it says of the same file."""


@dataclass(frozen=True)
class IndexReport:
    """``entries`` are the rows of the source that was read; ``new_items`` of them were planned in this run.

    ``pending_shards`` is above 0 where time was up: their files are in no catalogue yet.
    """

    store: ShardStore
    entries: pa.Table
    new_items: int
    unreadable: int
    pending_shards: int
    summary: RunSummary


def index(
    source: str,
    out: str,
    *,
    name: str = "videos",
    limit: int | None = None,
    settings: RunSettings = RunSettings(),
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Index a manifest, folder, glob, prefix or file into ``<out>/<name>-…``.

    ``source`` may also be an index that exists: then its own entries are taken, and what is pending is finished.

    Raises
    ------
    ManifestError
        If nothing is found, or what is found contradicts itself.
    """
    if ShardStore.is_store(source):
        store = ShardStore.open(source)
        if store.kind is not VIDEOS:
            raise SettingsError(f"{source} is a store of {store.kind.name}; a source of videos is wanted")
        entries, new_items = sample_entries(entries_of(store), limit), 0
    else:
        entries = sample_entries(read_entries(source), limit)
        fingerprint = fingerprint_of({"kind": "videos", "epoch": PROBE_EPOCH})
        spec = {"epoch": PROBE_EPOCH}
        store = ShardStore.create(out, kind=VIDEOS, name=name, fingerprint=fingerprint, spec=spec)
        new_items = add_entries(store, entries, source)
    runner = LocalRunner(NoFrames)
    summary = runner.run(ProbeTask(), store, settings, on_progress)
    if not summary.out_of_time and add_full_hashes(store):
        runner.run(ProbeTask(), store, settings)
    unreadable = write_quarantine(store) if summary.shards else len(failures(store))
    return IndexReport(store, entries, new_items, unreadable, len(store.pending()), summary)


def sample_entries(entries: pa.Table, limit: int | None) -> pa.Table:
    """At most ``limit`` entries, spread over label and split in proportion; the same ones each time."""
    if limit is None or limit >= entries.num_rows:
        return entries
    pairs = list(zip(entries["label"].to_pylist(), entries["split"].to_pylist(), strict=True))
    numbers = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    strata = np.array([numbers[p] for p in pairs], np.int32)
    ids = np.array([item_id(uri, None) for uri in entries["uri"].to_pylist()], "S32")
    return entries.filter(pa.array(stratified_sample(ids, strata, limit)))


def add_entries(store: ShardStore, entries: pa.Table, source: str) -> int:
    """Plan entries that the index does not have; number of items to probe."""
    for _ in range(8):
        known_items, known_rows = _known(store)
        ids = item_ids(entries)
        rows = [(i, *r) for i, r in zip(ids, _said(entries), strict=True)]
        fresh = [r not in known_rows for r in rows]
        if not any(fresh):
            return 0
        seen = set(known_items)
        work = []
        for item, is_fresh in zip(ids, fresh, strict=True):
            if is_fresh:
                work.append(item not in seen)
                seen.add(item)
        chosen = entries.filter(pa.array(fresh))
        fresh_ids = [i for i, f in zip(ids, fresh, strict=True) if f]
        if store.add_plan(_plan_rows(chosen, fresh_ids, work, "auto"), notes={"source": source}) is not None:
            return sum(work)
    raise RetryableError(f"{store.url}: other processes keep adding generations; run again")


def add_full_hashes(store: ShardStore) -> int:
    """Plan the full hash of files that share a sampled id; number of them."""
    collisions = sampled_collisions(read(store, ["item_id", "file_id", "id_method"]))
    items = {i for group in collisions.values() for i in group}
    if not items:
        return 0
    have, _ = _known(store)
    entries = _entries_by_item(store)
    todo = [(i, entries[i]) for i in sorted(items) if _full_item(entries[i]) not in have]
    if not todo:
        return 0
    table = pa.Table.from_pylist([row for _, row in todo], ENTRIES_SCHEMA)
    ids = [_full_item(row) for _, row in todo]
    store.add_plan(_plan_rows(table, ids, [True] * len(ids), "full"), notes={"full_hashes": True})
    return len(ids)


def catalog(store: ShardStore, entries: pa.Table) -> pa.Table:
    """The videos table of some entries of an index. See `pipeline.catalog.build_catalog`."""
    columns = [
        "item_id",
        "file_id",
        "id_method",
        "duration_us",
        "num_bytes",
        "width",
        "height",
        "fps",
        "codec",
        "container",
    ]
    probed = read(store, columns)
    bad = {f.video_id: f for _, f in failures(store)}
    collisions = sampled_collisions(probed)
    renamed: dict[str, str] = {}
    if collisions:
        rows = _entries_by_item(store)
        by_item = dict(zip(probed["item_id"].to_pylist(), probed["file_id"].to_pylist(), strict=True))
        full = {i: by_item.get(_full_item(rows[i]), "") for group in collisions.values() for i in group}
        renamed = true_file_ids(collisions, {i: f for i, f in full.items() if f})
    return build_catalog(entries, probed, bad, renamed)


def entries_of(store: ShardStore) -> pa.Table:
    """All entries of an index, the newest word on each URI and segment."""
    newest: dict[tuple[str, int | None, int | None], dict[str, object]] = {}
    for plan in store.plans():
        if plan.header.reopens:
            continue
        for batch in plan.batches():
            for row in batch.filter(pc.equal(batch["id_method"], "auto")).to_pylist():
                newest[row["uri"], row["start_us"], row["end_us"]] = row
    return pa.Table.from_pylist(
        [{n: r[n] for n in ENTRIES_SCHEMA.names} for r in newest.values()], ENTRIES_SCHEMA
    )


def _plan_rows(
    entries: pa.Table, ids: list[str], work: list[bool], id_method: str
) -> Iterator[pa.RecordBatch]:
    clips = np.array(work, np.int32)
    shards = np.full(len(clips), -1, np.int32)
    shards[clips > 0] = ShardFiller(auto_shard_clips(int(clips.sum()))).assign(clips[clips > 0])
    order = np.argsort(np.where(shards < 0, np.iinfo(np.int32).max, shards), kind="stable")
    table = pa.Table.from_arrays(
        [
            pa.array(ids),
            pa.array([id_method] * len(ids)),
            *entries.columns,
            pa.array(clips),
            pa.array(shards),
        ],
        schema=VIDEOS.plan_schema,
    )
    yield from table.take(pa.array(order)).to_batches(max_chunksize=16384)


def _said(entries: pa.Table) -> Iterator[tuple[object, ...]]:
    columns = (entries[n].to_pylist() for n in ("start_us", "end_us", "label", "split", "group"))
    return zip(*columns, strict=True)


def _known(store: ShardStore) -> tuple[set[str], set[tuple[object, ...]]]:
    items: set[str] = set()
    rows: set[tuple[object, ...]] = set()
    for plan in store.plans():
        for batch in plan.batches(["item_id", "start_us", "end_us", "label", "split", "group"]):
            columns = [c.to_pylist() for c in batch.columns]
            items.update(columns[0])
            rows.update(zip(*columns, strict=True))
    return items, rows


def _entries_by_item(store: ShardStore) -> dict[str, dict[str, object]]:
    return {
        row["item_id"]: {n: row[n] for n in ENTRIES_SCHEMA.names}
        for plan in store.plans()
        for batch in plan.batches()
        for row in batch.to_pylist()
    }


def _full_item(entry: dict[str, object]) -> str:
    return item_id(str(entry["uri"]), entry["token"], "full")  # type: ignore[arg-type]
