"""How many clips a shard of labels is to hold: enough for whole batches of what the teacher is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.label import LabelOptions, _clips_to_a_batch
from jobs.labelling.inputs import label_spec, read_policy
from jobs.selecting.judged import open_student
from pipeline.plan import auto_shard_clips
from schemas.policy import PolicySpec
from tests.jobs.labelled_archive import EXPECTED, add_policy, student_in

pytestmark = pytest.mark.slow

TOP = PolicySpec(kind="top-k", k=1, score="msp")


@pytest.mark.parametrize(
    ("policy", "expected", "audits", "clips"),
    [
        (PolicySpec(kind="dense"), 1.0, 0.0, 8),
        (TOP, 0.25, 0.0, 32),
        (TOP, 0.1, 0.0, 80),
        (TOP, 0.1, 0.1, 40),
        (TOP, 0.001, 0.0, 512),
        (PolicySpec(kind="budget", share=0.2, score="msp"), 0.9, 0.0, 40),
        (PolicySpec(kind="student-alone"), 1.0, 0.0, 32),
        (PolicySpec(kind="student-alone"), 1.0, 0.5, 16),
    ],
)
def test_the_less_is_asked_the_larger_are_shards(
    trained: Path, policy: PolicySpec, expected: float, audits: float, clips: int
) -> None:
    about = EXPECTED.model_copy(update={"share": expected})
    name = add_policy(trained, policy, name="shards", expected=about)
    student = open_student(student_in(trained))
    document = read_policy(student, name)
    spec = label_spec(student, document, LabelOptions(audit_share=audits))
    assert _clips_to_a_batch(8, spec, document) == clips
    assert auto_shard_clips(100_000, clips) >= 2 * clips
