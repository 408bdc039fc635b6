"""Two stores filled by one pass: what one decoding gives both of them is committed to the second, then to the first.

Both plans hold the same videos in the same shards; numbers of generations may differ. The first store's files alone
say what is done: a shard is computed again where its own is missing, and what the second has by then stands. What the
second lacks in the end (a shard that did not fit, a video that was removed meanwhile) is for a run of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.store.shard_store import ShardStore, Stamp
from schemas.shard import Shard, ShardKey, ShardResult


class PairedStore(ShardStore):
    """``first``, whose commits also write ``ShardResult.beside`` to ``second``.

    ``generations`` says which generation of the second holds the shards of one of the first.
    """

    def __init__(self, first: ShardStore, second: ShardStore, generations: Mapping[int, int]) -> None:
        super().__init__(first.files, first.document)
        self._second, self._generations = second, dict(generations)

    def __reduce__(self) -> tuple[Any, ...]:
        return (PairedStore, (ShardStore(self.files, self.document), self._second, self._generations))

    def commit(self, shard: Shard, result: ShardResult, stamp: Stamp | None = None) -> bool:
        if result.beside is not None:
            self._commit_beside(shard, result)
        return super().commit(shard, replace(result, beside=None), stamp)

    def _commit_beside(self, shard: Shard, result: ShardResult) -> None:
        generation = self._generations.get(shard.key.generation)
        if generation is None:
            return
        key = ShardKey(generation, shard.key.number)
        if self._second.is_committed(key):
            return
        wanted = {v.video_id for v in self._second.shard(key).videos}
        if wanted == {v.video_id for v in shard.videos}:
            self._second.commit(
                replace(shard, key=key), ShardResult(result.beside, result.failures, result.seconds)
            )
