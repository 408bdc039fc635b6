"""Prune: remove videos by id or URI, and finish what interrupted writers left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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
    """Videos that hold these URIs now; one that moved away from a URI, or was superseded there, is not meant."""
    if not uris:
        return set()
    wanted = {u if "://" in u else os.path.abspath(u) for u in uris}
    id_column, uri_column = store.kind.id_column, "uris" if store.kind.id_column == "video_id" else "uri"
    holds: dict[str, set[str]] = {}
    for plan in store.plans():  # a later row of a video replaces an earlier one
        for batch in plan.batches([id_column, uri_column]):
            names = batch[uri_column].to_pylist()
            for video, named in zip(batch[id_column].to_pylist(), names, strict=True):
                held = wanted.intersection(named if isinstance(named, list) else [named])
                if held:
                    holds[video] = held
                else:
                    holds.pop(video, None)
    for uri in sorted(wanted - set().union(*holds.values())):
        raise SettingsError(f"{store.url} has no video at {uri}")
    return set(holds)
