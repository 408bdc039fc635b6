"""What a student said before: rows of a store of scores, and what a budget chose among them.

The store and a choice for each of its generations travel with a task; rows are read where they are wanted.

Shapes: M videos.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.columns import matrix
from pipeline.known import id_array, ids_of
from pipeline.select.choice import chosen
from pipeline.store.data_files import read_footer
from pipeline.store.read import shard_rows
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.answering import ClipInHand
from pipeline.tasks.label_twice import FirstLook
from pipeline.tasks.labels_table import ClipAnswer
from pipeline.video.attempts import unreadable
from schemas.arrays import I64, Bools
from schemas.policy import Choice
from schemas.shard import Failure, Shard, ShardKey

_COLUMNS = [
    *("video_id", "start_us", "end_us", "student_logits", "student_right", "teacher_right"),
    *("score", "decode_ms", "student_ms", "damaged"),
]
_KEPT_SHARDS = 4
NO_SCORES = "NoScores"


class ScoredStore:
    """A `pipeline.tasks.label_twice.Scored` over a label store in which the student said its word on every clip.

    ``choices`` are those of its generations."""

    def __init__(self, store: ShardStore, choices: Mapping[int, Choice]) -> None:
        self._store, self._choices = store, dict(choices)
        self._lock = threading.Lock()  # a shard may be announced while another is computed
        self._where: _Where | None = None
        self._read: OrderedDict[ShardKey, tuple[pa.Table, tuple[Failure, ...]]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return (ScoredStore, (self._store, self._choices))

    def first_look(self, shard: Shard) -> FirstLook:
        """The clips of a shard's videos, with the student's words and what the budget says.

        A video of which there is neither a row nor a failure any more fails in passing.
        """
        with self._lock:
            keys = self._planned().keys([v.video_id for v in shard.videos if v.unreadable is None])
            found = {key: self._of_shard(key) for key in sorted(set(keys.values()))}
        clips: list[ClipInHand] = []
        failures: list[Failure] = []
        wanted = pa.array(list(keys), pa.string())
        for key, (table, failed) in found.items():
            rows = table.filter(pc.is_in(table["video_id"], value_set=wanted))
            clips += _in_hand(rows, self._choices[key.generation])
            failures += [f for f in failed if keys.get(f.video_id) == key]
        there = {c.video_id for c in clips} | {f.video_id for f in failures}
        failures += [
            unreadable(v) if v.unreadable is not None else _no_scores(v.video_id, v.uri, v.num_clips)
            for v in shard.videos
            if v.video_id not in there
        ]
        return FirstLook(sorted(clips, key=lambda c: c.key), tuple(failures))

    def knows(self, video_ids: Sequence[str]) -> Bools:
        """Which videos are among what was chosen from; (V,)."""
        with self._lock:
            there = self._planned().keys(list(video_ids))
        return np.array([i in there for i in video_ids], np.bool_)

    def _planned(self) -> _Where:
        """Where videos are scored, in generations that have a choice: others may be added meanwhile."""
        if self._where is None:
            self._where = _Where.of(self._store, self._choices)
        return self._where

    def _of_shard(self, key: ShardKey) -> tuple[pa.Table, tuple[Failure, ...]]:
        if key not in self._read:
            footer = read_footer(self._store.files, key)
            self._read[key] = (shard_rows(self._store, key, _COLUMNS), footer.failures)
            while len(self._read) > _KEPT_SHARDS:
                self._read.popitem(last=False)
        return self._read[key]


@dataclass(frozen=True)
class _Where:
    """In which shard each of M videos is computed: the last one that is planned. ``ids_M`` is sorted."""

    ids_M: NDArray[np.bytes_]
    generation_M: I64
    number_M: I64

    @classmethod
    def of(cls, store: ShardStore, generations: Container[int]) -> _Where:
        ids, of_each, numbers = [np.empty(0, "S16")], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for plan in (p for p in store.plans() if p.generation in generations):
            for batch in plan.batches(["video_id", "shard"]):
                batch = batch.filter(pc.greater_equal(batch["shard"], 0))
                ids.append(ids_of(batch["video_id"]))
                numbers.append(batch["shard"].to_numpy().astype(np.int64))
                of_each.append(np.full(batch.num_rows, plan.generation, np.int64))
        every, generation, number = np.concatenate(ids), np.concatenate(of_each), np.concatenate(numbers)
        order = np.lexsort((generation, every))
        last = np.append(every[order][1:] != every[order][:-1], True)[: len(order)]
        keep = order[last]
        return cls(every[keep], generation[keep], number[keep])

    def keys(self, video_ids: list[str]) -> dict[str, ShardKey]:
        """The shard of each video that is planned."""
        if not video_ids or not len(self.ids_M):
            return {}
        wanted = id_array(video_ids)
        at = np.searchsorted(self.ids_M, wanted).clip(max=len(self.ids_M) - 1)
        return {
            name: ShardKey(int(self.generation_M[i]), int(self.number_M[i]))
            for name, i, there in zip(
                video_ids, at.tolist(), (self.ids_M[at] == wanted).tolist(), strict=True
            )
            if there
        }


def _in_hand(rows: pa.Table, choice: Choice) -> list[ClipInHand]:
    taken_N = chosen(choice, rows)
    num_classes = rows.schema.field("student_logits").type.list_size
    seen_N = rows["student_logits"].is_valid().to_numpy()  # not of clips that were left out as idle
    logits_NK = np.full((len(seen_N), num_classes), np.nan, np.float32)
    logits_NK[seen_N] = matrix(rows["student_logits"].drop_null())
    words = rows.drop_columns(["student_logits"]).to_pylist()
    return [
        ClipInHand(
            word["video_id"],
            word["start_us"],
            word["end_us"],
            "damaged when it was scored" if word["damaged"] else "",
            word["decode_ms"],
            answer=ClipAnswer(
                student_logits_K=logits_K if seen else None,
                student_right=word["student_right"],
                teacher_right=word["teacher_right"],
                student_ms=word["student_ms"],
                score=word["score"],
                deferred=taken,
            ),
        )
        for word, logits_K, seen, taken in zip(
            words, logits_NK, seen_N.tolist(), taken_N.tolist(), strict=True
        )
    ]


def _no_scores(video_id: str, uri: str, planned: int) -> Failure:
    message = "the student's words on it are gone from the store of scores: run again, then retry"
    return Failure(video_id, uri, "scores", NO_SCORES, message, False, 1, planned)
