"""From videos to shards. A video is never split over two shards; a shard is some minutes of work at most.

Works on batches and keeps 24 bytes a video, so a million videos plan in seconds and little memory. The order of the
videos is kept; within a shard they are sorted by id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.clip import ClipSpec, count_clips_N

Batches = Callable[[], Iterable[pa.RecordBatch]]
"""A stream of batches that can be read more than once."""

_AIM_SHARDS = 64
_MIN_SHARD_CLIPS, _MAX_SHARD_CLIPS = 16, 4096
_LAST_SHARD_CLIPS = 4
_LAST_PART = 64
_LEAST_TAPER, _MOST_TAPER = 8, 1024
_SHARDS_A_WORKER = 8


def auto_shard_clips(total_clips: int, batch_size: int = 1) -> int:
    """Clips to aim for in a shard: for 64 shards, or half the root of all clips where that is more; 16 to 4096 clips.

    Of two batches at least, for none goes over the end of a shard; but where there is little to do, that there are
    shards for several workers counts for more.
    """
    least = max(_MIN_SHARD_CLIPS, min(2 * batch_size, total_clips // 8))
    aim = max(_AIM_SHARDS, math.isqrt(total_clips) // 2)
    return int(np.clip(-(-total_clips // aim), least, max(least, _MAX_SHARD_CLIPS)))


class ShardFiller:
    """Deals consecutive videos to shards: a shard is full when the next video would pass ``shard_clips``.

    A video longer than that has a shard of its own. Numbers start at 0 and have no gap. With ``taper_clips``, the
    clips of all videos, shards become smaller towards the end: the n-th part of what is left, so that n workers end at
    about the same time. How many there will be is not known; it is taken to be 8, of many shards one for each 8.
    """

    def __init__(self, shard_clips: int, taper_clips: int | None = None) -> None:
        self._most, self._left = shard_clips, taper_clips
        self._last = max(_LAST_SHARD_CLIPS, shard_clips // _LAST_PART)
        expected = (taper_clips or 0) // shard_clips // _SHARDS_A_WORKER
        self._taper = min(max(_LEAST_TAPER, expected), _MOST_TAPER)
        self._limit, self._shard, self._held = self._next_limit(), 0, 0

    def assign(self, clips_N: NDArray[np.int32]) -> NDArray[np.int32]:
        """Shard number of each of the next N videos; (N,)."""
        out = np.empty(len(clips_N), np.int32)
        for i, n in enumerate(np.maximum(clips_N, 1).tolist()):  # one without clips takes time too
            if self._held and self._held + n > self._limit:
                self._shard, self._held = self._shard + 1, 0
                self._limit = self._next_limit()
            out[i] = self._shard
            self._held += n
            if self._left is not None:
                self._left -= n
        return out

    def _next_limit(self) -> int:
        if self._left is None:
            return self._most
        return min(self._most, max(self._last, -(-self._left // self._taper)))


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


def with_work(
    batch: pa.RecordBatch, clips_N: NDArray[np.int32], shard_N: NDArray[np.int32]
) -> pa.RecordBatch:
    """The batch with the columns ``clips`` and ``shard`` at its end."""
    fields = [
        *batch.schema,
        pa.field("clips", pa.int32(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
    ]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, pa.array(clips_N), pa.array(shard_N)], schema=pa.schema(fields)
    )
