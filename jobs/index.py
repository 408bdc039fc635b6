"""Index: find the videos, name them by content, probe them. Resumable; running again looks for what is new.

The index is a store of kind *videos*, beside the target stores of the same ``out`` folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.catalog import build_catalog, item_ids, items_to_hash, sampled_collisions, true_file_ids
from pipeline.identity import item_id
from pipeline.known import hash_text, ids_of
from pipeline.local_runner import LocalRunner
from pipeline.manifest import read_entries, with_tokens
from pipeline.plan import ShardFiller, auto_shard_clips, stratified_sample
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.store.kinds import VIDEOS
from pipeline.store.read import failures, read, write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.probe import ProbeTask
from pipeline.uris import without_secrets
from pipeline.video.frame_source import LocalFrameSource
from schemas.arrays import U64, Bools
from schemas.errors import RetryableError, SettingsError
from schemas.spec import fingerprint_of
from schemas.video import ENTRIES_SCHEMA

PROBE_EPOCH = 1
"""Raised by hand when probing or identity changes what it says of the same file."""

_BATCH_ROWS = 1 << 16
_TRIES = 8
_SAID = ("start_us", "end_us", "label", "split", "group")


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
    runner: Runner | None = None,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Index a manifest, folder, glob, prefix or file into ``<out>/<name>-…``, by ``runner`` (this process if none).

    ``source`` may also be an index that exists: then its own entries are taken, and what is pending is finished.

    Raises
    ------
    ManifestError
        If nothing is found, or a manifest makes no sense. (Copies with two labels are found by `catalog`.)
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
    runner = runner or LocalRunner(LocalFrameSource)
    summary = runner.run(ProbeTask(), store, settings, on_progress)
    if not summary.out_of_time and add_full_hashes(store):
        hashed = runner.run(ProbeTask(), store, settings.less(summary.seconds))
        summary.shards += hashed.shards
        summary.seconds += hashed.seconds
        summary.out_of_time = hashed.out_of_time
        summary.failed_shards.update(hashed.failed_shards)
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
    """Plan entries of which the index does not have the newest word; number of items to probe."""
    for _ in range(_TRIES):
        seen = _seen(store)
        ids = item_ids(entries)
        keys_N, said_N = _keys_and_words(entries, ids)
        # Rows of one URI and segment are one entry; the last one stands for it, here as in `entries_of`.
        rows = len(keys_N) - 1 - np.unique(keys_N[::-1], return_index=True)[1]
        rows = np.sort(rows[~seen.says(keys_N[rows], said_N[rows])])
        if not len(rows):
            return 0
        all_fresh = len(rows) == len(ids)
        fresh = entries if all_fresh else entries.take(pa.array(rows))
        fresh_ids = (ids if all_fresh else ids.take(pa.array(rows))).combine_chunks()
        work = seen.lacks(ids_of(fresh_ids))
        if (
            store.add_plan(
                _plan_rows(fresh, fresh_ids, work, "auto"), notes={"source": without_secrets(source)}
            )
            is not None
        ):
            return int(work.sum())
    raise RetryableError(f"{store.url}: other processes keep adding generations; run again")


def add_full_hashes(store: ShardStore) -> int:
    """Plan the full hash of files that share a sampled id with another that is still there; number of them."""
    for _ in range(_TRIES):
        collisions, rows, full, there = _collisions(store, read(store, ["item_id", "file_id", "id_method"]))
        wanted = set(items_to_hash(collisions, full, there))
        work = [row for row in rows if row["item_id"] in wanted]
        ids = pa.array([_full_item(row) for row in work], pa.string())
        needed = _seen(store).lacks(ids_of(ids))
        if not needed.any():
            return 0
        table = pa.Table.from_pylist(work, ENTRIES_SCHEMA).filter(pa.array(needed))
        ids = ids.filter(pa.array(needed))
        planned = _plan_rows(table, ids, np.ones(len(ids), np.bool_), "full")
        if store.add_plan(planned, notes={"full_hashes": True}) is not None:
            return len(ids)
    raise RetryableError(f"{store.url}: other processes keep adding generations; run again")


def catalog(store: ShardStore, entries: pa.Table) -> pa.Table:
    """The videos table of some entries of an index. See `pipeline.catalog.build_catalog`."""
    about = ["duration_us", "num_bytes", "width", "height", "fps", "codec", "container"]
    probed = read(store, ["item_id", "file_id", "id_method", *about])
    bad = {f.video_id: f for _, f in failures(store)}
    collisions, rows, full, there = _collisions(store, probed)
    renamed = true_file_ids(collisions, full, there)
    for row in rows:
        failure = bad.get(_full_item(row))
        if renamed[row["item_id"]] is None and failure is not None:
            bad[row["item_id"]] = failure
    return build_catalog(entries, probed, bad, renamed)


def entries_of(store: ShardStore) -> pa.Table:
    """All entries of an index, the newest word on each URI and segment."""
    keys = [_key_and_word(b)[0] for b in _planned(store, ["item_id", "id_method", *ENTRIES_SCHEMA.names])]
    if not keys:
        return ENTRIES_SCHEMA.empty_table()
    keys_N = np.concatenate(keys)
    is_newest = np.zeros(len(keys_N), np.bool_)
    is_newest[len(keys_N) - 1 - np.unique(keys_N[::-1], return_index=True)[1]] = True
    found, start = [], 0
    for batch in _planned(store, ["id_method", *ENTRIES_SCHEMA.names]):
        found.append(
            batch.filter(pa.array(is_newest[start : start + len(batch)])).select(ENTRIES_SCHEMA.names)
        )
        start += len(batch)
    return pa.Table.from_batches(found, ENTRIES_SCHEMA)


@dataclass(frozen=True)
class _Seen:
    """What an index has planned: items, sorted, and the newest word on each key (both hashed; sorted by key)."""

    items_I: NDArray[np.bytes_]
    keys_K: U64
    said_K: U64

    def says(self, keys_N: U64, said_N: U64) -> Bools:
        """Whether the newest word on each key is this one."""
        if not len(self.keys_K):
            return np.zeros(len(keys_N), np.bool_)
        at = np.searchsorted(self.keys_K, keys_N).clip(max=len(self.keys_K) - 1)
        same: Bools = (self.keys_K[at] == keys_N) & (self.said_K[at] == said_N)
        return same

    def lacks(self, items_N: NDArray[np.bytes_]) -> Bools:
        """Which items are not planned yet; of one that occurs twice, the first."""
        lacking = np.zeros(len(items_N), np.bool_)
        lacking[np.unique(items_N, return_index=True)[1]] = True
        return lacking & ~np.isin(items_N, self.items_I)


def _seen(store: ShardStore) -> _Seen:
    items = [ids_of(b["item_id"]) for plan in store.plans() for b in plan.batches(["item_id"])]
    columns = ["id_method", "item_id", "uri", *_SAID]
    pairs = [_key_and_word(b, b["item_id"]) for b in _planned(store, columns)]
    if not pairs:
        return _Seen(np.empty(0, "S16"), np.empty(0, np.uint64), np.empty(0, np.uint64))
    keys, said = (np.concatenate(part) for part in zip(*pairs, strict=True))
    keys_K, last = np.unique(keys[::-1], return_index=True)
    return _Seen(np.sort(np.concatenate(items)), keys_K, said[len(said) - 1 - last])


def _planned(store: ShardStore, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Plan rows that stand for entries, oldest generation first."""
    for plan in store.plans():
        if not plan.header.reopens:
            for batch in plan.batches(columns):
                yield batch.filter(pc.equal(batch["id_method"], "auto"))


def _keys_and_words(entries: pa.Table, ids: pa.ChunkedArray) -> tuple[U64, U64]:
    """`_key_and_word` of a table, in batches."""
    table = entries.append_column("item_id", ids)
    pairs = [_key_and_word(b, b["item_id"]) for b in table.to_batches(max_chunksize=_BATCH_ROWS)]
    keys, said = zip(*pairs, strict=True)
    return np.concatenate(keys), np.concatenate(said)


def _key_and_word(rows: pa.RecordBatch, ids: pa.Array | None = None) -> tuple[U64, U64]:
    """Hashes of each row's URI and segment, and (with ``ids``) of its item and all that is said of it."""
    keys = _hash_columns([rows["uri"], rows["start_us"], rows["end_us"]])
    if ids is None:
        return keys, keys
    return keys, _hash_columns([ids, *(rows[n] for n in ("label", "split", "group"))])


def _hash_columns(columns: list[pa.Array]) -> U64:
    """A 64-bit hash of each row of some columns."""
    texts = [pc.fill_null(pc.cast(c, pa.string()), "\x01") for c in columns]
    return hash_text(pc.binary_join_element_wise(*texts, "\0"))


def _plan_rows(entries: pa.Table, ids: pa.Array, work: Bools, id_method: str) -> Iterator[pa.RecordBatch]:
    clips = work.astype(np.int32)
    shards = np.full(len(clips), -1, np.int32)
    total = int(clips.sum())
    shards[work] = ShardFiller(auto_shard_clips(total), total).assign(clips[work])
    columns = [ids, pa.repeat(id_method, len(ids)), *entries.columns, pa.array(clips), pa.array(shards)]
    table = pa.Table.from_arrays(columns, schema=VIDEOS.plan_schema)
    if not work.all():
        table = table.take(pa.array(np.argsort(~work, kind="stable")))
    yield from table.to_batches(max_chunksize=16384)


def _collisions(
    store: ShardStore, probed: pa.Table
) -> tuple[dict[str, list[str]], list[dict[str, Any]], dict[str, str], set[str]]:
    """Items that share a sampled id; their entries; the full hash of those that have one; those still there."""
    collisions = sampled_collisions(probed)
    if not collisions:
        return {}, [], {}, set()
    wanted = pa.array([i for items in collisions.values() for i in items], pa.string())
    columns = ["id_method", "item_id", *ENTRIES_SCHEMA.names]
    batches = [b.filter(pc.is_in(b["item_id"], value_set=wanted)) for b in _planned(store, columns)]
    table = pa.Table.from_batches(batches)
    rows = list({row["item_id"]: row for row in table.to_pylist()}.values())
    hashed = probed.filter(pc.equal(probed["id_method"], "full"))
    of_item = dict(zip(hashed["item_id"].to_pylist(), hashed["file_id"].to_pylist(), strict=True))
    full = {r["item_id"]: of_item[_full_item(r)] for r in rows if _full_item(r) in of_item}
    tokens = with_tokens(pa.Table.from_pylist(rows, ENTRIES_SCHEMA))["token"].to_pylist()
    return (
        collisions,
        rows,
        full,
        {r["item_id"] for r, t in zip(rows, tokens, strict=True) if t == r["token"]},
    )


def _full_item(entry: dict[str, Any]) -> str:
    return item_id(entry["uri"], entry["token"], "full")
