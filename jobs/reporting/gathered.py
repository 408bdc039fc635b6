"""What a report is made from: a finished label store, student and targets behind it, and what follows from them.

The store is scanned; no model is run. Student and targets may be gone: then what only they could tell is missing, and
why is said.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.labelling.audit import Audit, audit
from jobs.labelling.finished import open_finished
from jobs.labelling.inputs import POLICY_FILE
from jobs.labelling.labelled import labelled_videos
from jobs.labelling.video_labels import READ, VIDEO_LABELS_SCHEMA, finished, of_shard
from jobs.reporting.tally import Tally
from jobs.selecting.applied import Applied, applied
from jobs.selecting.judged import SPLITS, StudentFolder, learnt_from, logits_of, open_student, targets_of
from jobs.simulate import SimulateOptions, SimulateReport, simulate
from pipeline.columns import matrix
from pipeline.known import group_hashes, videos_in_force
from pipeline.labelled import LabelledVideo
from pipeline.report.compared import Compared, compared
from pipeline.report.ledger import Ledger, Prices
from pipeline.store.read import failures, scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.arrays import I64
from schemas.errors import SettingsError, StoreError
from schemas.labels import LabelSpec
from schemas.policy import CostFlags, PolicyDocument
from schemas.shard import Failure

log = logging.getLogger("locum.report")

_SCORES = ("msp", "entropy", "gain", "gain-in-context", "video-in-context")
_DRAWS = 200
"""Bootstrap draws of each point of the frontier, of which only the estimates are drawn."""


@dataclass(frozen=True)
class Held:
    """What is known of student and teacher on the student's held-out videos."""

    split: str
    applied: Applied
    simulated: SimulateReport


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
    prices: Prices | None = None,
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
    document = _policy_in(store)
    missing: list[str] = []
    behind = _behind(spec, document, student, targets, split, missing)
    tally, parts = Tally(spec, document.costs), [VIDEO_LABELS_SCHEMA.empty_table()]
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
        missing=tuple(missing),
    )


def _policy_in(store: ShardStore) -> PolicyDocument:
    try:
        return PolicyDocument.model_validate_json(store.files.read(POLICY_FILE))
    except FileNotFoundError:
        raise SettingsError(f"{store.url} has no {POLICY_FILE}: run the same `locum label` again") from None


# ---------------------------------------------------------------- the student and the targets behind it


@dataclass(frozen=True)
class _Behind:
    """What stands behind labels, as far as it is there."""

    held: Held | None = None
    cached: ShardStore | None = None
    learnt: pa.Array | None = None


def _behind(
    spec: LabelSpec,
    document: PolicyDocument,
    student_url: str | None,
    targets_url: str | None,
    split: str,
    missing: list[str],
) -> _Behind:
    """A student or targets that were named must be there; others may be gone."""
    try:
        student = open_student(student_url or spec.student.program.rpartition("/")[0])
    except (SettingsError, OSError) as e:
        if student_url is not None:
            raise
        missing.append(f"The student is not where it was ({e}): --student says where it is now.")
        return _Behind()
    if student.fingerprint != spec.student.fingerprint:
        raise SettingsError(
            f"{student.url} ({student.fingerprint[:12]}) is not the student of these labels "
            f"({spec.student.fingerprint[:12]})"
        )
    try:
        cached = targets_of(student, targets_url)
    except (SettingsError, StoreError, OSError) as e:
        if targets_url is not None:
            raise
        missing.append(f"The targets are not where they were ({e}): --targets says where they are now.")
        return _Behind()
    learnt = learnt_from(student, cached)
    try:
        on = applied(student, document, cached, split)
    except SettingsError as e:
        missing.append(f"Nothing is known of the student's held-out videos: {e}.")
        return _Behind(None, cached, learnt)
    return _Behind(Held(split, on, _simulated(student, document, cached, split)), cached, learnt)


def _simulated(
    student: StudentFolder, document: PolicyDocument, cached: ShardStore, split: str
) -> SimulateReport:
    """All policies on the same videos and at the same costs."""
    costs = document.costs.model_dump()
    own = (document.policy.score,) if document.policy.score not in _SCORES else ()
    options = SimulateOptions(
        split,
        cached.url,
        CostFlags(**{k: v for k, v in costs.items() if k in CostFlags.model_fields}),
        tuple(dict.fromkeys((*own, *_SCORES))),
        num_draws=_DRAWS,
    )
    return simulate([student.url], options)


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
