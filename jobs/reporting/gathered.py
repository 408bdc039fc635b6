"""What a report is made from: a finished label store, student and targets behind it, and what follows from them.

The store is scanned; no model is run. Student and targets may be gone: then what only they could tell is missing, and
why is said.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from jobs.labelling.audit import Audit, audit
from jobs.labelling.finished import open_finished
from jobs.labelling.inputs import POLICY_FILE
from jobs.labelling.labelled import labelled_videos
from jobs.labelling.video_labels import READ, VIDEO_LABELS_SCHEMA, finished, of_shard
from jobs.reporting.behind import Held, find_behind
from jobs.reporting.tally import Tally
from jobs.selecting.judged import SPLITS, logits_of
from pipeline.columns import matrix
from pipeline.known import group_hashes, videos_in_force
from pipeline.labelled import LabelledVideo
from pipeline.report.compared import Compared, compared
from pipeline.report.ledger import Ledger
from pipeline.store.read import failures, scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from pipeline.uris import without_secrets
from schemas.arrays import I64
from schemas.errors import SettingsError
from schemas.labels import LabelSpec
from schemas.policy import PolicyDocument, PriceFlags
from schemas.shard import Failure

_UNKNOWN = (
    "Which of these videos student, policy or teacher were made from is not known: the accuracy may be of such "
    "videos."
)


@dataclass(frozen=True)
class Gathered:
    """``missing`` says what could not be had, and why."""

    store: ShardStore
    spec: LabelSpec
    document: PolicyDocument
    pending: int
    table: pa.Table
    videos: list[LabelledVideo]
    failed: list[Failure]
    ledger: Ledger
    compared: Compared
    audit: Audit
    held: Held | None
    missing: tuple[str, ...]


def gather(
    labels: str,
    *,
    student: str | None = None,
    targets: str | None = None,
    split: str = "test",
    prices: PriceFlags = PriceFlags(),
    unfinished: bool = False,
) -> Gathered:
    """Read all of it. ``student`` and ``targets`` are where they are now, if not where they were.

    Raises
    ------
    SettingsError
        If it is no finished label store, or a student or targets that were named are not those of the labels.
    """
    if split not in SPLITS:
        raise SettingsError(f"there is no split {split!r} to judge on: {', '.join(SPLITS)}")
    store, pending = open_finished(labels, unfinished=unfinished, what="report")
    spec = LabelSpec(**store.document.spec)
    document = _policy_in(store, spec)
    behind = find_behind(store, spec, document, student, targets, split)
    tally, parts = (
        Tally(spec, document.costs, twice=_decodes_twice(store, spec)),
        [VIDEO_LABELS_SCHEMA.empty_table()],
    )
    for rows in scan(store, [*spec.table_schema().names, *READ]):
        if rows.num_rows:
            tally.add(rows)
            parts.append(of_shard(spec, rows))
    table = finished(pa.concat_tables(parts), document.costs, behind.learnt)
    return Gathered(
        store=store,
        spec=spec,
        document=document,
        pending=pending,
        table=table,
        videos=labelled_videos(store, table),
        failed=[failure for _, failure in failures(store)],
        ledger=tally.ledger(prices),
        compared=_compared(spec, table, behind.cached),
        audit=audit(store, table, document),
        held=behind.held,
        missing=(*behind.missing, *(() if behind.learnt is not None else (_UNKNOWN,))),
    )


def _policy_in(store: ShardStore, spec: LabelSpec) -> PolicyDocument:
    where = f"{without_secrets(store.url)}/{POLICY_FILE}"
    try:
        document = PolicyDocument.model_validate_json(store.files.read(POLICY_FILE))
    except FileNotFoundError:
        raise SettingsError(f"{store.url} has no {POLICY_FILE}: run the same `locum label` again") from None
    except ValidationError as e:
        raise SettingsError(f"{where} is no policy: {e.errors()[0]['msg']}") from e
    alone = spec.policy.kind == "student-alone"  # the first pass of an exact budget has the budget's policy
    if document.student != spec.student.fingerprint or not (alone or document.policy == spec.policy):
        raise SettingsError(
            f"{where} is not the policy that these labels were made by: run `locum label` again"
        )
    return document


def _decodes_twice(store: ShardStore, spec: LabelSpec) -> bool:
    """Whether clips that go to the teacher are decoded again for it."""
    plans = store.plans()
    return spec.policy.kind == "budget" or bool(plans and plans[0].header.notes.get("decodings") == 2)


# ---------------------------------------------------------------- what was lost


def _compared(spec: LabelSpec, table: pa.Table, cached: ShardStore | None) -> Compared:
    """Labels beside what is known of the same videos, but for those that a model was made from. Where a policy decides
    by passages, one word for a whole video is not what it is for, and nothing is compared."""
    fair = table.filter(pc.invert(table["learnt"]))
    if spec.policy.passage is not None:
        fair = fair.slice(0, 0)
    return compared(_classes(fair["top1"]), _truth(spec, fair), _dense(fair, cached), group_hashes(fair))


def _classes(column: pa.ChunkedArray) -> I64:
    """-1 where null."""
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def _truth(spec: LabelSpec, table: pa.Table) -> I64:
    """The class that the manifest's label of each video means, -1 where it means none; (V,)."""
    number = {name: k for k, name in enumerate(spec.classes)}
    found = [number.get(spec.label_map.get(name, name), -1) for name in table["label"].to_pylist()]
    return np.array(found, np.int64)


def _dense(table: pa.Table, cached: ShardStore | None) -> I64:
    """The dense teacher's class of each video where it is known, by the targets or an audit, else -1; (V,)."""
    dense_V = _classes(table["audit_top1"])
    if cached is None:
        return dense_V
    ids = table["video_id"]
    there = pc.is_in(ids, value_set=videos_in_force(cached)["video_id"].combine_chunks())
    if not pc.any(there).as_py():
        return dense_V
    said = logits_of(cached, ids.filter(there))
    at_N = np.asarray(pc.index_in(said["video_id"], value_set=ids.combine_chunks()).to_numpy())
    probs_NK = softmax(matrix(said["logits"]))
    total_VK = np.zeros((table.num_rows, probs_NK.shape[1]))
    np.add.at(total_VK, at_N, probs_NK)
    count_V = np.bincount(at_N, minlength=table.num_rows)
    whole_V = count_V == table["clips"].to_numpy()
    return np.where((dense_V < 0) & whole_V, total_VK.argmax(axis=1), dense_V)


def deferred_by_class(table: pa.Table) -> Mapping[str, tuple[int, int]]:
    """Of each label that videos were given: their clips, and those that went to the teacher."""
    named = table.filter(pc.is_valid(table["top1_name"]))
    sums = named.group_by("top1_name").aggregate([("clips", "sum"), ("deferred", "sum")])
    return {row["top1_name"]: (row["clips_sum"], row["deferred_sum"]) for row in sums.to_pylist()}
