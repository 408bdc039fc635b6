"""Rows of a label store from what both models said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.uncertainty import softmax
from schemas.arrays import Float32
from schemas.errors import ModelError
from schemas.labels import NOBODY, STUDENT, TEACHER, LabelSpec


@dataclass(eq=False)
class ClipAnswer:
    """What is known of a clip; None where nobody was asked. Logits as the models gave them."""

    student_logits_K: Float32 | None = None
    student_right: float | None = None
    teacher_right: float | None = None
    student_ms: float | None = None
    teacher_logits_SK: Float32 | None = None
    teacher_ms: float | None = None
    score: float | None = None
    inclusion: float | None = None
    deferred: bool = False
    audited: bool = False


Row = tuple[str, int, int, float, bool, ClipAnswer]
"""video_id, start_us, end_us, decode_ms, damaged, answer."""


def label_table(spec: LabelSpec, rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of `schemas.labels.label_schema`."""
    schema = spec.table_schema()
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for video_id, start_us, end_us, decode_ms, damaged, a in rows:
        teacher_K = None if a.teacher_logits_SK is None else _as_cached(a.teacher_logits_SK, spec)
        by, top1, confidence = _answered(a, teacher_K, spec.student_temperature)
        row = {
            "video_id": video_id,
            "start_us": start_us,
            "end_us": end_us,
            "answered_by": by,
            "top1": top1,
            "confidence": confidence,
            "student_logits": a.student_logits_K,
            "teacher_logits": teacher_K,
            "student_right": a.student_right,
            "teacher_right": a.teacher_right,
            "score": a.score,
            "deferred": a.deferred,
            "audited": a.audited,
            "inclusion": a.inclusion,
            "decode_ms": decode_ms,
            "student_ms": a.student_ms,
            "teacher_ms": a.teacher_ms,
            "damaged": damaged,
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _answered(
    answer: ClipAnswer, teacher_K: NDArray[Any] | None, temperature: float
) -> tuple[str, int | None, float | None]:
    """Who answered, its first class and that one's probability. Audits change no answer."""
    if answer.deferred and teacher_K is not None:
        return (TEACHER, *_first(softmax(teacher_K[None].astype(np.float32))[0]))
    if answer.student_logits_K is not None:
        scaled_1K = (answer.student_logits_K / temperature).astype(np.float32)[None]
        return (STUDENT, *_first(softmax(scaled_1K)[0]))
    return NOBODY, None, None


def _first(probs_K: Float32) -> tuple[int, float]:
    top1 = int(probs_K.argmax())
    return top1, float(probs_K[top1])


def _as_cached(logits_SK: Float32, spec: LabelSpec) -> NDArray[Any]:
    """The mean of a clip's samples, rounded as a target store would: what the dense teacher's word is made of; (K,)."""
    with np.errstate(over="ignore"):
        stored_K = np.asarray(logits_SK.mean(axis=0, dtype=np.float32).astype(spec.teacher.logits.dtype))
    if not np.isfinite(stored_K).all():
        raise ModelError(f"a logit of the teacher does not fit into {spec.teacher.logits.dtype}")
    return stored_K
