"""An exact budget over an archive: what the student is asked first, and what is chosen among its scores.

Each generation of the scores has a choice of its own, which is written once: a grown archive never revisits what was
chosen before.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.select.choice import choose
from pipeline.store.read import shard_rows
from pipeline.store.shard_store import ShardStore
from schemas.labels import LabelSpec
from schemas.policy import Choice, PolicySpec

CHOICES_FOLDER = "choices"
_KEY = ["video_id", "start_us", "score"]


def score_spec(spec: LabelSpec) -> LabelSpec:
    """The student's word on every clip, with the score of the policy: what budgets of any size choose among."""
    alone = PolicySpec(kind="student-alone", score=spec.policy.score)
    return spec.model_copy(update={"policy": alone, "aggregation": "replace-mean", "audit_share": 0.0})


def choices(scores: ShardStore, labels: ShardStore, share: float) -> dict[int, Choice]:
    """The choice of each generation of a finished store of scores: as it is written beside the labels, or as it is made
    and written now."""
    generations = sorted({key.generation for key in scores.committed()})
    return {g: _choice(scores, labels, share, g) for g in generations}


def _choice(scores: ShardStore, labels: ShardStore, share: float, generation: int) -> Choice:
    rel = f"{CHOICES_FOLDER}/g{generation:04d}.json"
    if not labels.files.exists(rel):

        def tables() -> Iterator[pa.Table]:
            keys = (k for k in sorted(scores.committed()) if k.generation == generation)
            return (shard_rows(scores, key, _KEY) for key in keys)

        labels.files.put_new(rel, choose(tables, share).model_dump_json(indent=1).encode())
    return Choice.model_validate_json(labels.files.read(rel))
