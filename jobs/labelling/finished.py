"""A label store that is to be read: opened, and seen to be finished."""

from __future__ import annotations

from pipeline.store.kinds import LABELS
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count
from schemas.errors import SettingsError


def open_finished(url: str, *, unfinished: bool, what: str) -> tuple[ShardStore, int]:
    """The label store, and how many of its clips are pending: none, unless it may be ``unfinished``. ``what`` is done
    with it, in a word.

    Raises
    ------
    SettingsError
        If it is another store, holds nothing, or is not finished.
    """
    store = ShardStore.open(url)
    if store.kind.name != LABELS.name:
        raise SettingsError(
            f"{store.url} is a store of {store.kind.name}: one of {LABELS.name}, made by `locum label`, is wanted"
        )
    counts = count(store)
    pending = counts.planned - counts.rows - counts.quarantined_rows - counts.tombstoned_rows
    if not counts.planned:
        raise SettingsError(f"{store.url} holds no videos yet: run `locum label`")
    if not counts.complete and not unfinished:
        raise SettingsError(
            f"{store.url} is not finished: {pending} of {counts.planned} clips, in {counts.pending_shards} shards, are "
            f"pending. Run the same `locum label` again, or {what} what is there with --unfinished"
        )
    return store, pending
