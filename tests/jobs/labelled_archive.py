"""A small archive with a student, its policies, and runs of `jobs.label` over it: for tests. See `trained`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.label import LabelOptions, LabelReport, label
from jobs.selecting.judged import judged, open_student, targets_of
from pipeline.models.weights import fetch
from pipeline.select.budget import price_of
from pipeline.select.context import Context
from pipeline.select.context_fit import ContextFit
from pipeline.select.joined import Judged
from pipeline.select.scores import deferral
from pipeline.select.simulate import Simulation
from pipeline.store.read import read
from schemas.context import ContextHeads
from schemas.policy import AggregationName, Certificate, CostSpec, Expected, PolicyDocument, PolicySpec, Wish

EXPECTED = Expected(
    videos=1, groups=1, share=0, ratio=1, agreement=1, accuracy=None, gain=None, gain_low=None
)

CERTIFICATE = Certificate(
    alpha=0.1,
    delta=0.05,
    look=1,
    tested_at=0.05,
    spent=0.05,
    groups=50,
    named_groups=50,
    losses=0,
    p_value=0.01,
    member=1,
    members=3,
    sequence="0" * 32,
    left_out={},
    holds_for="videos like these",
    void_if=(),
)


def student_in(folder: Path) -> str:
    (found,) = (folder / "out").glob("student-*")
    return str(found)


def add_policy(
    folder: Path,
    spec: PolicySpec,
    aggregation: AggregationName = "replace-mean",
    name: str = "p",
    student_url: str | None = None,
    **changes: object,
) -> str:
    """Write a policy into the student's folder; its name."""
    student = open_student(student_url or student_in(folder))
    document = PolicyDocument(
        name=name,
        student=student.fingerprint,
        weights_sha256=student.about["weights_sha256"],
        program_sha256=fetch(f"{student.url}/student.pt2").sha256,
        frames=student.about["frames"]["fingerprint"],
        targets=student.about["targets"][0]["fingerprint"],
        classes=tuple(student.about["classes"]),
        policy=spec,
        aggregation=aggregation,
        student_temperature=1.3,
        teacher_temperature=0.9,
        context=heads_in(folder) if spec.in_context else None,
        wish=Wish(budget=0.5),
        costs=CostSpec(),
        expected=EXPECTED,
        made_at="now",
        versions={},
    )
    document = document.model_copy(update=changes)
    student.files.put_over(f"policies/{name}.json", document.model_dump_json().encode())
    return name


def run(folder: Path, out: Path, policy: str, **options: object) -> LabelReport:
    given = LabelOptions(**{"num_threads": 1, "shard_clips": 12, "decodings": 1, **options})  # type: ignore[arg-type]
    return label(str(folder / "archive" / "m.csv"), str(out), student_in(folder), policy, given)


def simulation(folder: Path) -> Simulation:
    return Simulation(_held_out(folder).known(Context((heads_in(folder),))), CostSpec(), num_draws=10)


def heads_in(folder: Path) -> ContextHeads:
    """Heads in context that say something else of each clip: so few clips would give ones that say the same of all."""
    heads = ContextFit(_held_out(folder).known()).heads
    rng = np.random.default_rng(0)
    student, teacher = (
        h.model_copy(
            update={"slopes": tuple(tuple(x) for x in rng.normal(0, 0.2, (len(h.mean), 3)).tolist())}
        )
        for h in (heads.student, heads.teacher)
    )
    return heads.model_copy(update={"student": student, "teacher": teacher})


def _held_out(folder: Path) -> Judged:
    student = open_student(student_in(folder))
    store = targets_of(student)
    val, calibration, test = (judged(student, split, store) for split in ("val", "calibration", "test"))
    return val.and_(calibration).and_(test).tempered(1.3, 0.9)


def middle(folder: Path, score: str) -> float:
    """A threshold that half of the held-out clips pass, midway between two scores."""
    return price_of(deferral(simulation(folder).known.scores, score), 0.5)


def deferred(report: LabelReport) -> set[tuple[str, int]]:
    """The clips that the policy called the teacher for."""
    rows = read(report.store, ["video_id", "start_us", "deferred"]).to_pylist()
    return {(r["video_id"], r["start_us"]) for r in rows if r["deferred"]}
