"""Labels: what is asked of a student and its teacher over an archive, and the table that answers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from schemas.clip import ClipSpec
from schemas.context import ContextHeads
from schemas.frames import FrameSpec
from schemas.policy import AggregationName, PolicySpec
from schemas.spec import Spec, fingerprint_of
from schemas.targets import TargetSpec

LABELS_EPOCH = 1
"""Raised by hand when a change of ours moves answers or decisions by more than rounding."""

STUDENT, TEACHER, NOBODY = "student", "teacher", "none"
"""Who answered for a clip."""


class StudentRef(Spec):
    """An exported student: a torch.export file from uint8 frames to logits and confidences."""

    program: str
    """Path or URL of the file; no part of its identity."""
    sha256: str
    """Of the file."""
    fingerprint: str
    """Of the student."""


class LabelSpec(Spec):
    """All that determines the labels of clips."""

    student: StudentRef
    """The student."""
    frames: FrameSpec
    """The student's view."""
    teacher: TargetSpec
    """The teacher, and its view."""
    targets: str
    """Fingerprint of the teacher's targets."""
    classes: tuple[str, ...] = ()
    """Names of the classes."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """Which class a label of the manifest is, where they are not called alike; no answer hangs on it."""
    policy: PolicySpec
    """Which of both is asked about a clip."""
    aggregation: AggregationName
    """From clips to a video's label."""
    student_temperature: float = Field(1.0, gt=0)
    """Its logits are divided by this."""
    teacher_temperature: float = Field(1.0, gt=0)
    """Its logits are divided by this where the aggregation wants it."""
    context: ContextHeads | None = None
    """What the policy's score comes from, where it goes by one in context."""
    idle: float = Field(0.0, ge=0, lt=1)
    """Clips in which less changes, by the sizes of their packets, than this share of what does in the busiest clips of
    their video are not looked at."""
    audit_share: float = Field(0.0, ge=0, le=1)
    """Share of videos about all of whose clips the teacher is asked as well, to see how often the labels agree."""
    audit_seed: int = Field(0, ge=0)
    """Of the draw of these videos."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> LabelSpec:
        if (
            self.frames.clip.model_copy(update={"num_frames": self.teacher.clip.num_frames})
            != self.teacher.clip
        ):
            raise ValueError("student and teacher look at different clips")
        if self.teacher.passes > 1:
            raise ValueError("a teacher of several stochastic passes cannot be asked about single clips yet")
        if self.policy.in_context and self.context is None:
            raise ValueError(f"the score {self.policy.score!r} wants heads in context, and there are none")
        return self

    @property
    def sees_one_decoding(self) -> bool:
        """Whether frames of one decoding can be what both are to see."""
        return self.frames.decode == self.teacher.decode

    @property
    def clip(self) -> ClipSpec:
        """The clips."""
        return self.teacher.clip

    def fingerprint(self) -> str:
        """32 hex digits of all that determines the rows, and of nothing else."""
        body: dict[str, Any] = self.model_dump(
            mode="json", exclude={"student", "frames", "teacher", "classes", "label_map"}
        )
        for name in ("context", "idle"):  # as it was before there were any
            body = {k: v for k, v in body.items() if k != name or v}
        body["policy"] = self.policy.identity()
        return fingerprint_of(
            {
                "kind": "labels",
                "epoch": LABELS_EPOCH,
                "student": [self.student.sha256, self.student.fingerprint],
                "frames": self.frames.fingerprint(),
                **body,
            }
        )

    def table_schema(self) -> pa.Schema:
        """Arrow schema of the label table."""
        return label_schema(self.teacher.teacher.num_classes or 0, self.teacher.logits.dtype)


def label_schema(num_classes: int, teacher_dtype: str = "float16") -> pa.Schema:
    """Schema of ``data/*.parquet`` in a label store. One planned clip a row.

    ``answered_by`` is ``student``, ``teacher`` or ``none``; ``top1`` and ``confidence`` are of who answered, the
    student at its temperature. Logits are as the models gave them, null where they were not asked. ``score`` is the
    policy's (null where the student did not look), ``deferred`` its word; about ``audited`` clips the teacher was asked
    at random, which changes no answer. ``inclusion`` is the chance with which the policy asked the teacher, where that
    was drawn."""
    f32 = pa.float32()
    teacher = pa.float16() if teacher_dtype == "float16" else f32

    def logits(kind: pa.DataType) -> pa.DataType:
        return pa.list_(pa.field("element", kind, nullable=False), num_classes)

    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("start_us", pa.int64(), nullable=False),
            pa.field("end_us", pa.int64(), nullable=False),
            pa.field("answered_by", pa.string(), nullable=False),
            pa.field("top1", pa.int32()),
            pa.field("confidence", f32),
            pa.field("student_logits", logits(f32)),
            pa.field("teacher_logits", logits(teacher)),
            pa.field("student_right", f32),
            pa.field("teacher_right", f32),
            pa.field("score", f32),
            pa.field("deferred", pa.bool_(), nullable=False),
            pa.field("audited", pa.bool_(), nullable=False),
            pa.field("inclusion", f32),
            pa.field("decode_ms", f32, nullable=False),
            pa.field("student_ms", f32),
            pa.field("teacher_ms", f32),
            pa.field("damaged", pa.bool_(), nullable=False),
        ]
    )
