"""Plan what of some videos is new to a store, and try again where another process was first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.replan import NextGeneration, known_videos, next_generation
from pipeline.split_leaks import check_splits
from pipeline.store.mend import retry
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec
from schemas.errors import RetryableError
from schemas.shard import SUPERSEDED

_TRIES = 8


def add_videos(
    store: ShardStore,
    videos: pa.Table,
    clip: ClipSpec,
    *,
    notes: Mapping[str, Any],
    shard_clips: int | None = None,
    most_shard_clips: int | None = None,
    batch_size: int = 1,
) -> NextGeneration:
    """Plan what of ``videos`` (`schemas.video.VIDEOS_SCHEMA`) is new to the store, with ``notes`` of what made it.

    Shards hold ``shard_clips``, or as many as suit the total, ``most_shard_clips`` at most.

    Raises
    ------
    ManifestError
        If a group would span two splits.
    RetryableError
        If other processes keep planning at the same moment.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        yield from videos.to_batches(max_chunksize=16384)

    for _ in range(_TRIES):
        known = known_videos(store)
        check_splits(known, batches)
        added = next_generation(
            batches,
            clip,
            known=known,
            removed=store.tombstones(),
            shard_clips=shard_clips,
            most_shard_clips=most_shard_clips,
            batch_size=batch_size,
        )
        if added.is_empty:
            return added
        if store.add_plan(added.rows(), notes=notes, after=known.generations) is not None:
            if added.amended:
                retry(store, stage=SUPERSEDED)  # of videos whose bytes are back
            return added
    raise RetryableError(f"{store.url}: other processes keep adding generations; run again")
