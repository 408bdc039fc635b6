"""From videos to shards. A video is never split over two shards; a shard is some minutes of work at most.

Works on batches and keeps 24 bytes a video, so a million videos plan in seconds and little memory. The order of the
videos is kept; within a shard they are sorted by id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.clip import ClipSpec, count_clips_N

Batches = Callable[[], Iterable[pa.RecordBatch]]
"""A stream of batches that can be read more than once."""

_AIM_SHARDS = 64
_MIN_SHARD_CLIPS, _MAX_SHARD_CLIPS = 32, 4096


@dataclass(frozen=True)
class PlanSummary:
    """What a plan comes to."""

    videos: int
    clips: int
    shards: int
    num_bytes: int
    duration_us: int


def auto_shard_clips(total_clips: int) -> int:
    """Clips to aim for in a shard: some 64 shards, of 32 to 4096 clips."""
    return int(np.clip(-(-total_clips // _AIM_SHARDS), _MIN_SHARD_CLIPS, _MAX_SHARD_CLIPS))


def assign_shards(clips_N: NDArray[np.int32], shard_clips: int, first: int = 0) -> NDArray[np.int32]:
    """Shard number of each video: consecutive videos fill a shard until the next would pass ``shard_clips``.

    A video longer than that has a shard of its own. Numbers start at ``first`` and have no gap.
    """
    out = np.empty(len(clips_N), np.int32)
    shard, held = first, 0
    for i, n in enumerate(clips_N.tolist()):
        if held and held + n > shard_clips:
            shard, held = shard + 1, 0
        out[i] = shard
        held += max(n, 1)
    return out


def video_clips(batch: pa.RecordBatch, spec: ClipSpec) -> NDArray[np.int32]:
    """Number of clips of each video of a batch with the columns of the videos table; (N,)."""
    duration = batch["duration_us"].to_numpy()
    start = pc.fill_null(batch["start_us"], 0).to_numpy()
    end = np.minimum(pc.fill_null(batch["end_us"], np.iinfo(np.int64).max).to_numpy(), duration)
    return count_clips_N(np.maximum(end - start, 0), spec)


def stratified_sample(
    ids_N: NDArray[np.bytes_], stratum_N: NDArray[np.int32], limit: int
) -> NDArray[np.bool_]:
    """Mask of ``limit`` videos, spread over the strata in proportion (at least one each while they last).

    Deterministic: within a stratum the videos are ordered by a hash of their id, so a larger limit keeps the
    smaller one's choice, as nearly as proportions allow.
    """
    n = len(ids_N)
    if limit >= n:
        return np.ones(n, np.bool_)
    _, stratum, size = np.unique(stratum_N, return_inverse=True, return_counts=True)
    order = np.lexsort((ids_N, stratum))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(np.cumsum(size) - size, size)
    # Rank r of a stratum of m videos stands at quantile r/m: taking the lowest quantiles is proportional.
    quantile = rank / size[stratum]
    chosen = np.lexsort((ids_N, quantile))[:limit]
    mask = np.zeros(n, np.bool_)
    mask[chosen] = True
    return mask


def plan_batches(
    videos: Batches, spec: ClipSpec, shard_clips: int, *, keep_N: NDArray[np.bool_] | None = None
) -> Iterator[pa.RecordBatch]:
    """Plan rows (the videos' columns, ``clips`` and ``shard``), in shard order, for `ShardStore.add_plan`.

    ``keep_N`` says which videos of the whole stream are wanted; all where not given.
    """
    shard, held, at = 0, 0, 0
    for batch in videos():
        mask = None if keep_N is None else keep_N[at : at + batch.num_rows]
        at += batch.num_rows
        if mask is not None and not mask.all():
            batch = batch.filter(pa.array(mask))
        if not batch.num_rows:
            continue
        clips = video_clips(batch, spec)
        numbers = np.empty(len(clips), np.int32)
        for i, n in enumerate(clips.tolist()):
            if held and held + n > shard_clips:
                shard, held = shard + 1, 0
            numbers[i] = shard
            held += max(n, 1)
        yield with_work(batch, clips, numbers)


def with_work(batch: pa.RecordBatch, clips_N: NDArray[np.int32], shard_N: NDArray[np.int32]) -> pa.RecordBatch:
    """The batch with the columns ``clips`` and ``shard`` at its end."""
    fields = [*batch.schema, pa.field("clips", pa.int32(), nullable=False), pa.field("shard", pa.int32(), nullable=False)]
    return pa.RecordBatch.from_arrays([*batch.columns, pa.array(clips_N), pa.array(shard_N)], schema=pa.schema(fields))
