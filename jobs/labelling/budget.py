"""An exact budget over an archive: what the student is asked first, and what is chosen among its scores.

Each generation of the scores has a choice of its own, which is written once: a grown archive never revisits what was
chosen before.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.select.choice import choose
from pipeline.store.mend import retry
from pipeline.store.read import failures, scan
from pipeline.store.shard_store import ShardStore
from schemas.labels import LabelSpec
from schemas.policy import Choice, PolicySpec

CHOICES_FOLDER = "choices"
_KEY = ["video_id", "start_us", "score"]


def score_spec(spec: LabelSpec) -> LabelSpec:
    """The student's word on every clip, with the score of the policy: what budgets of any size choose among."""
    alone = PolicySpec(kind="student-alone", score=spec.policy.score)
    return spec.model_copy(
        update={"policy": alone, "aggregation": "replace-mean", "audit_share": 0.0, "audit_seed": 0}
    )


def choices(scores: ShardStore, labels: ShardStore, share: float) -> dict[int, Choice]:
    """The choice of each generation of the scores of which every shard is there: as it is written beside the labels, or
    as it is made and written now."""
    missing = {key.generation for key in scores.pending()}
    whole = [plan.generation for plan in scores.plans() if plan.header.shards]
    return {g: _choice(scores, labels, share, g) for g in whole if g not in missing}


def _choice(scores: ShardStore, labels: ShardStore, share: float, generation: int) -> Choice:
    rel = f"{CHOICES_FOLDER}/g{generation:04d}.json"
    idle = LabelSpec(**scores.document.spec).idle
    if not labels.files.exists(rel):

        def tables() -> Iterator[pa.Table]:
            for table in scan(scores, _KEY, generation=generation):
                # Clips that were left out as idle have no score, and are not chosen among.
                yield table.filter(pc.is_valid(table["score"])) if idle else table

        labels.files.put_new(rel, choose(tables, share).model_dump_json(indent=1).encode())
    return Choice.model_validate_json(labels.files.read(rel))


def reopen_scored(labels: ShardStore, scores: ShardStore) -> None:
    """Plan videos anew that failed when they were scored, and have scores by now (`locum retry` of the scores)."""
    missing = {key.generation for key in scores.pending()}
    settled = (plan.ids for plan in scores.plans() if plan.header.reopens and plan.generation not in missing)
    reopened: set[str] = set().union(*settled)
    if not reopened:
        return
    failed = {f.video_id for _, f in failures(labels) if not f.permanent and f.missing_rows}
    still = {f.video_id for _, f in failures(scores) if not f.permanent and f.missing_rows}
    if mended := failed & reopened - still:
        retry(labels, only=mended)
