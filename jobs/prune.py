"""Prune: remove videos by id or URI, and finish what interrupted writers left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from pipeline.store.mend import remove, sweep
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError


def prune(
    store: str, *, videos: Sequence[str] = (), uris: Sequence[str] = (), reason: str = ""
) -> dict[str, Any]:
    """Remove videos (by id, or all videos that a URI names), then sweep. Counts of what went.

    Raises
    ------
    SettingsError
        If an id or URI is not in the store.
    """
    opened = ShardStore.open(store)
    ids = {*videos, *_ids_of(opened, uris)}
    rows = remove(opened, ids, reason) if ids else 0
    shards, files = sweep(opened)
    return {
        "store": opened.url,
        "removed_videos": len(ids),
        "removed_rows": rows,
        "swept_shards": shards,
        "swept_files": files,
    }


def _ids_of(store: ShardStore, uris: Sequence[str]) -> set[str]:
    if not uris:
        return set()
    wanted = {u if "://" in u else os.path.abspath(u) for u in uris}
    found: dict[str, set[str]] = {u: set() for u in wanted}
    id_column = store.kind.id_column
    for plan in store.plans():
        for batch in plan.batches([id_column, "uris" if id_column == "video_id" else "uri"]):
            ids, names = batch.column(0), batch.column(1)
            flat = pc.list_flatten(names) if id_column == "video_id" else names
            parent = (
                pc.list_parent_indices(names).to_pylist() if id_column == "video_id" else range(len(names))
            )
            for at, uri in zip(parent, flat.to_pylist(), strict=True):
                if uri in wanted:
                    found[uri].add(ids[at].as_py())
    for uri, hits in found.items():
        if not hits:
            raise SettingsError(f"{store.url} has no video at {uri}")
    return set().union(*found.values())
