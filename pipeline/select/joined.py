"""What both models said of the same clips: a student's predictions joined with the cached targets, as arrays.

Shapes: N clips, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.columns import matrix
from pipeline.select.known import Known
from pipeline.select.scores import InVideo, clip_scores
from pipeline.uncertainty import softmax
from schemas.arrays import I64, U64, Bools, Float32
from schemas.errors import SettingsError


@dataclass(frozen=True)
class Judged:
    """Clips of which both said something, sorted by video and start. ``label_N`` is -1 where there is none;
    ``fitted_N`` are those on which the confidence heads were fitted, ``known_to_teacher_N`` of videos that the teacher
    was trained on."""

    video_id_N: list[str]
    start_us_N: I64
    end_us_N: I64
    group_N: U64
    label_N: I64
    fitted_N: Bools
    known_to_teacher_N: Bools
    student_NK: Float32
    """Logits."""
    teacher_NK: Float32
    """Logits."""
    student_right_N: Float32
    teacher_right_N: Float32
    damaged_N: Bools
    """Clips of which the teacher saw damaged frames."""
    pooled_NK: Float32 | None = None
    """The teacher's logits at a temperature of its own, if that is not 1."""

    def __len__(self) -> int:
        return len(self.video_id_N)

    def tempered(self, student: float, teacher: float = 1.0) -> Judged:
        """The same, the logits divided by temperatures; the teacher's for aggregations that want it."""
        pooled_NK = None if teacher == 1.0 else (self.teacher_NK / teacher).astype(np.float32)
        return replace(self, student_NK=(self.student_NK / student).astype(np.float32), pooled_NK=pooled_NK)

    def known(self, context: InVideo | None = None) -> Known:
        """What policies and simulations read."""
        scores = clip_scores(
            self.video_id_N,
            self.start_us_N,
            self.end_us_N,
            self.student_NK,
            self.student_right_N,
            self.teacher_right_N,
            context,
        )
        first_V = np.searchsorted(scores.video_N, np.arange(scores.num_videos))
        tempered_NK = None if self.pooled_NK is None else softmax(self.pooled_NK)
        return Known(scores, softmax(self.teacher_NK), self.label_N, self.group_N[first_V], tempered_NK)

    def where(self, rows_N: Bools) -> Judged:
        """Some of the clips."""
        return self._take(np.flatnonzero(rows_N))

    def and_(self, other: Judged) -> Judged:
        """These clips and others, of other videos."""
        own, its = (
            j if j.pooled_NK is not None else replace(j, pooled_NK=j.teacher_NK) for j in (self, other)
        )
        ids = own.video_id_N + its.video_id_N
        columns = {n: np.concatenate([getattr(own, n), getattr(its, n)]) for n in _ARRAYS}
        both = Judged(ids, **columns)
        return both._take(np.lexsort((both.start_us_N, np.array(ids))))

    def _take(self, at_M: NDArray[np.intp]) -> Judged:
        taken: dict[str, Any] = {n: getattr(self, n) for n in _ARRAYS}
        taken = {n: None if v is None else v[at_M] for n, v in taken.items()}
        return Judged([self.video_id_N[i] for i in at_M.tolist()], **taken)


_ARRAYS = tuple(f.name for f in fields(Judged) if f.name != "video_id_N")


def joined(predictions: pa.Table, targets: pa.Table) -> tuple[Judged, int]:
    """Predictions (`pipeline.distill.predict.prediction_schema`) with the ``logits`` and ``damaged`` of ``targets``,
    by video and start; and of how many predictions no target is there.

    Raises
    ------
    SettingsError
        If none is there, or the numbers of classes differ.
    """
    asked, said = (_keys(t) for t in (predictions, targets))
    order = np.argsort(said)
    at = (
        order[np.searchsorted(said, asked, sorter=order).clip(max=max(0, len(said) - 1))]
        if len(said)
        else said
    )
    found_N = said[at] == asked if len(said) else np.zeros(len(asked), np.bool_)
    if not found_N.any():
        raise SettingsError(
            "of none of the student's clips there is a target: are these the targets it learnt from?"
        )
    rows = np.flatnonzero(found_N)
    rows = rows[np.argsort(asked[rows], kind="stable")]
    p = predictions.take(pa.array(rows))
    t = targets.take(pa.array(at[rows]))
    student, teacher = matrix(p["logits"]), matrix(t["logits"])
    if student.shape != teacher.shape:
        raise SettingsError(f"the student has {student.shape[1]} classes, its targets {teacher.shape[1]}")

    def column(name: str) -> NDArray[Any]:
        return np.asarray(p[name].to_numpy())

    judged = Judged(
        p["video_id"].to_pylist(),
        column("start_us"),
        column("end_us"),
        column("group"),
        p["label"].fill_null(-1).to_numpy().astype(np.int64),
        column("fitted").astype(np.bool_),
        column("known_to_teacher").astype(np.bool_),
        student,
        teacher,
        column("student_right"),
        column("teacher_right"),
        np.asarray(t["damaged"].to_numpy(), np.bool_),
    )
    return judged, int((~found_N).sum())


def _keys(table: pa.Table) -> NDArray[np.bytes_]:
    """Sortable keys of rows: video, then start; (N,)."""
    ids, starts = table["video_id"].to_pylist(), table["start_us"].to_pylist()
    return np.array([f"{i}{start:016x}" for i, start in zip(ids, starts, strict=True)], "S48")
