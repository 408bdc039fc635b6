"""What stands behind labels: the student, the targets, and what is known of the student's held-out videos.

Either may be gone, or out of reach: then what only they could tell is missing, and why is said. What the user names
must be there.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.distilling.inputs import open_kind
from jobs.labelling.video_labels import FILE
from jobs.selecting.applied import Applied, applied
from jobs.selecting.judged import StudentFolder, learnt_from, open_student, targets_of
from jobs.simulate import SimulateOptions, SimulateReport, simulate
from pipeline.store.kinds import TARGETS
from pipeline.store.shard_store import ShardStore
from pipeline.uris import scrubbed
from schemas.errors import LocumError, SettingsError
from schemas.labels import LabelSpec
from schemas.policy import CostFlags, PolicyDocument

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
class Behind:
    """As far as it is there; ``missing`` says what is not, and why. ``learnt`` are the ids of videos that a model was
    made from, None where that is not known."""

    held: Held | None = None
    cached: ShardStore | None = None
    learnt: pa.Array | None = None
    missing: tuple[str, ...] = ()


def find_behind(
    store: ShardStore,
    spec: LabelSpec,
    document: PolicyDocument,
    student_url: str | None,
    targets_url: str | None,
    split: str,
) -> Behind:
    """Look for it where it was, or where it is said to be.

    Raises
    ------
    LocumError, OSError
        If what was named is not there, or does not belong to the labels.
    """
    missing: list[str] = []
    student = _student(spec, student_url, missing)
    cached = _targets(spec, student, targets_url, missing)
    if student is None or cached is None:
        return Behind(None, cached, _noted(store), tuple(missing))
    held = learnt = None
    try:
        learnt = learnt_from(student, cached)
        on = applied(student, document, cached, split)
        held = Held(split, on, _simulated(student, document, cached, split))
    except SettingsError as e:
        missing.append(scrubbed(f"Nothing is known of the student's held-out videos: {e}."))
    return Behind(held, cached, _noted(store) if learnt is None else learnt, tuple(missing))


def _student(spec: LabelSpec, url: str | None, missing: list[str]) -> StudentFolder | None:
    try:
        student = open_student(url or spec.student.program.rpartition("/")[0])
    except (LocumError, OSError) as e:
        if url is not None:
            raise
        missing.append(scrubbed(f"The student is not where it was ({e}): --student says where it is now."))
        return None
    if student.fingerprint != spec.student.fingerprint:
        raise SettingsError(
            f"{student.url} ({student.fingerprint[:12]}) is not the student of these labels "
            f"({spec.student.fingerprint[:12]})"
        )
    return student


def _targets(
    spec: LabelSpec, student: StudentFolder | None, url: str | None, missing: list[str]
) -> ShardStore | None:
    try:
        if student is not None:
            cached = targets_of(student, url)
        elif url is not None:
            cached = open_kind(url, TARGETS.name)
        else:
            return None
    except (LocumError, OSError) as e:
        if url is not None:
            raise
        missing.append(
            scrubbed(f"The targets are not where they were ({e}): --targets says where they are now.")
        )
        return None
    if cached.document.fingerprint != spec.targets:
        raise SettingsError(
            f"{cached.url} ({cached.document.fingerprint[:12]}) are not the targets of these labels "
            f"({spec.targets[:12]})"
        )
    return cached


def _noted(store: ShardStore) -> pa.Array | None:
    """Videos that a model was made from, as `locum label` noted them."""
    try:
        table = pq.read_table(io.BytesIO(store.files.read(FILE)))
    except FileNotFoundError:
        return None
    if "learnt" not in table.column_names:
        return None
    return table.filter(table["learnt"])["video_id"].combine_chunks()


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
