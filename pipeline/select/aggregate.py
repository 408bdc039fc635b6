"""From the answers about clips to a word on each video.

The reference that everything is measured by is the dense teacher's: `replace_mean` where the teacher was asked about
every clip, that is, the largest mean of its probabilities, the lowest class among equals.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision
from pipeline.select.scores import ClipScores
from schemas.arrays import I64, Float32

Floats = NDArray[np.float64]
_SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Answers:
    """What was said of clips. Rows of both (N, K) that ``decision`` did not ask for do not count."""

    scores: ClipScores
    decision: Decision
    student_NK: Float32
    teacher_NK: Float32

    @property
    def heard_N(self) -> NDArray[np.bool_]:
        """Clips of which anything was said."""
        return self.decision.student_N | self.decision.teacher_N


def replace_mean(answers: Answers) -> Floats:
    """The mean over clips of the teacher's word where it was asked, else of the student's; (V, K)."""
    return _mean(answers, _one_word(answers), answers.heard_N.astype(np.float64))


def confidence_weighted(answers: Answers) -> Floats:
    """As `replace_mean`, each clip by how likely the one who answered is right, as the student sees it: by 1 where it
    has not looked; (V, K)."""
    s, student_N = answers.scores, answers.decision.student_N
    right_N = np.where(answers.decision.teacher_N, s.teacher_right_N, s.student_right_N)
    weight_N = np.maximum(np.where(student_N, right_N, 1.0).astype(np.float64), 1e-6)
    return _mean(answers, _one_word(answers), weight_N * answers.heard_N)


def teacher_only(answers: Answers) -> Floats:
    """The mean of the teacher's words alone; of the student's where it was not asked about any clip. (V, K)"""
    asked_N = answers.decision.teacher_N
    asked_V = np.bincount(answers.scores.video_N, asked_N, answers.scores.num_videos) > 0
    counts_N = np.where(asked_V[answers.scores.video_N], asked_N, answers.decision.student_N)
    return _mean(answers, _one_word(answers), counts_N.astype(np.float64))


def log_pool(answers: Answers) -> Floats:
    """As `replace_mean`, but where both answered a clip's word is the geometric mean of both; (V, K)."""
    word_NK = _one_word(answers)
    both_N = answers.decision.student_N & answers.decision.teacher_N
    pair = (answers.student_NK[both_N].astype(np.float64), answers.teacher_NK[both_N].astype(np.float64))
    pooled = np.exp(sum(np.log(np.maximum(p, _SMALLEST)) for p in pair) / 2)
    word_NK[both_N] = pooled / pooled.sum(axis=1, keepdims=True)
    return _mean(answers, word_NK, answers.heard_N.astype(np.float64))


def control_variate(answers: Answers) -> Floats:
    """The student's mean, corrected by what the teacher said otherwise, each clip by the inverse of its chance of being
    asked about: unbiased for the dense teacher's mean. May leave 0 to 1. (V, K)

    Raises
    ------
    ValueError
        Where the teacher was not asked at random, or could not have been asked about some clip; or the student was not
        asked about all.
    """
    decision, n_V = answers.decision, answers.scores.size_V
    if decision.inclusion_N is None or not (decision.inclusion_N > 0).all() or not decision.student_N.all():
        raise ValueError(
            "a control variate needs the student's word on all clips, and a teacher asked at random about any"
        )
    asked = decision.teacher_N
    word_NK = answers.student_NK.astype(np.float64)
    word_NK[asked] += (answers.teacher_NK[asked] - word_NK[asked]) / decision.inclusion_N[asked, None]
    return np.asarray(_by_video(answers.scores, word_NK) / n_V[:, None])


AGGREGATIONS: Mapping[str, Callable[[Answers], Floats]] = MappingProxyType(
    {
        "replace-mean": replace_mean,
        "confidence-weighted": confidence_weighted,
        "teacher-only": teacher_only,
        "log-pool": log_pool,
        "control-variate": control_variate,
    }
)

TEMPERED = frozenset({"confidence-weighted", "log-pool"})
"""Aggregations that hear the teacher at a temperature of its own. The others hear it as it is, so that they come to the
dense teacher's word where it is asked about everything."""

EXACT_WHEN_ALL_DEFERRED = frozenset({"replace-mean", "teacher-only"})
"""Aggregations that give the dense teacher's word where the teacher is asked about all clips; no other can be
certified."""


def video_labels(word_VK: Floats) -> I64:
    """The first class of each video, the lowest among equals; (V,)."""
    return np.asarray(word_VK.argmax(axis=1))


def _one_word(answers: Answers) -> Floats:
    """The teacher's where it was asked, else the student's, else 0; (N, K)."""
    word_NK = np.zeros(answers.student_NK.shape)
    student_N, teacher_N = answers.decision.student_N, answers.decision.teacher_N
    word_NK[student_N] = answers.student_NK[student_N]
    word_NK[teacher_N] = answers.teacher_NK[teacher_N]
    return word_NK


def _mean(answers: Answers, word_NK: Floats, weight_N: Floats) -> Floats:
    """Weighted mean by video; a video of which nothing was said has no word (nan)."""
    total_VK = _by_video(answers.scores, word_NK * weight_N[:, None])
    with np.errstate(invalid="ignore"):
        return np.asarray(total_VK / _by_video(answers.scores, weight_N[:, None]))


def _by_video(scores: ClipScores, value_NX: Floats) -> Floats:
    """Sums over the clips of each video; (V, X). Rows are sorted by video, and every video has one."""
    return np.asarray(
        np.add.reduceat(value_NX, np.searchsorted(scores.video_N, np.arange(scores.num_videos)))
    )
