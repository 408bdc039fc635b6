"""What the teachers say of rows of a snapshot, as probabilities at a temperature.

Shapes: N rows, K classes, J of them kept, M teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.snapshot import Snapshot, Teacher
from pipeline.uncertainty import softmax
from schemas.arrays import I64, Float32
from schemas.errors import SettingsError
from schemas.targets import TOP_K_TEMPERATURES


def check_readable(
    num_teachers: int,
    has_kept_only: bool,
    temperature: float,
    multi_label: bool,
    weights_M: tuple[float, ...] | None,
) -> None:
    """Raises SettingsError where targets of such teachers cannot be had so; arguments as of `TargetReader`."""
    if temperature <= 0:
        raise SettingsError(f"the temperature must be above 0, got {temperature}")
    if weights_M is not None and (len(weights_M) != num_teachers or min(weights_M) <= 0):
        raise SettingsError(
            f"a weight above 0 is wanted for each of {num_teachers} teachers, got {list(weights_M)}"
        )
    if not has_kept_only:
        return
    if num_teachers > 1 or multi_label:
        raise SettingsError("of top-k targets a single teacher's can be learnt, and no multi-label ones")
    if temperature not in TOP_K_TEMPERATURES:
        raise SettingsError(
            f"top-k targets are known at the temperatures {TOP_K_TEMPERATURES}, not at {temperature:g}"
        )


@dataclass(frozen=True)
class TargetReader:
    """Reads targets of a snapshot.

    ``multi_label``: each class is a coin of its own, and probabilities are sigmoids. ``weights_M`` are those of the
    teachers in their mean; all alike where None.

    Raises
    ------
    SettingsError
        If the stores do not hold what would be needed for that.
    """

    snapshot: Snapshot
    temperature: float = 1.0
    multi_label: bool = False
    weights_M: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_readable(
            len(self.snapshot.teachers),
            self.has_kept_only,
            self.temperature,
            self.multi_label,
            self.weights_M,
        )

    @property
    def has_kept_only(self) -> bool:
        """Whether of each row some classes are known, and of the others only what they come to together."""
        return self.snapshot.teachers[0].classes_RJ is not None

    def dense(self, rows_N: I64) -> Float32:
        """The teachers' mean probabilities; (N, K). Not where ``has_kept_only``."""
        teachers = self.snapshot.teachers
        share_M = np.ones(len(teachers)) if self.weights_M is None else np.array(self.weights_M)
        out_NK = np.zeros((len(rows_N), self.snapshot.num_classes), np.float32)
        for teacher, share in zip(teachers, (share_M / share_M.sum()).tolist(), strict=True):
            z_NK = teacher.logits_RK[rows_N].astype(np.float32) / np.float32(self.temperature)
            out_NK += np.float32(share) * (_sigmoid(z_NK) if self.multi_label else softmax(z_NK))
        return out_NK

    def kept(self, rows_N: I64) -> tuple[NDArray[np.int64], Float32]:
        """Classes that are known of each row, and their probabilities; (N, J) both. Only where ``has_kept_only``."""
        teacher = self.snapshot.teachers[0]
        classes_RJ, lse_N = _kept_of(teacher, rows_N, TOP_K_TEMPERATURES.index(int(self.temperature)))
        z_NJ = teacher.logits_RK[rows_N].astype(np.float64) / self.temperature
        probs_NJ = np.exp(z_NJ - lse_N[:, None])
        # Logits are rounded to float16 and their sum was not: together they may come to a little more than 1.
        return classes_RJ, (probs_NJ / np.maximum(probs_NJ.sum(axis=1, keepdims=True), 1.0)).astype(
            np.float32
        )

    def first(self, rows_N: I64) -> NDArray[np.int64]:
        """The teachers' first class of each row; (N,)."""
        if self.has_kept_only:
            classes_NJ, probs_NJ = self.kept(rows_N)
            best_N1 = probs_NJ.argmax(axis=1)[:, None]
            return np.asarray(np.take_along_axis(classes_NJ, best_N1, axis=1)[:, 0])
        return np.asarray(self.dense(rows_N).argmax(axis=1))


def _kept_of(teacher: Teacher, rows_N: I64, at: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if teacher.classes_RJ is None or teacher.lse_R3 is None:
        raise ValueError("the teacher keeps all logits")
    return teacher.classes_RJ[rows_N].astype(np.int64), teacher.lse_R3[rows_N, at].astype(np.float64)


def _sigmoid(z_NK: Float32) -> Float32:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-z_NK)), np.float32)
