"""What a decision costs: decoding, student and teacher, in seconds of the device each runs on.

Every clip of every video is decoded, once, whoever is asked: that is what `locum label` does; in two passes (an exact
budget) what the teacher is to see is decoded again, from the last keyframe before it. With ``seek`` cost is a
function of the set of clips, not a sum over them: a video is opened once, and frames between its clips are decoded
where the next keyframe is not nearer. With one decoding for both models what either looks at is decoded once.

Shapes: N clips, V videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision
from pipeline.select.scores import ClipScores
from schemas.arrays import Bools
from schemas.clip import US
from schemas.policy import CostSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spent:
    """Seconds for each video, (V,) each. ``decode_V`` has opening in it."""

    decode_V: Floats
    student_V: Floats
    teacher_V: Floats

    @property
    def seconds_V(self) -> Floats:
        return self.decode_V + self.student_V + self.teacher_V

    @property
    def seconds(self) -> float:
        return float(self.seconds_V.sum())

    def money(self, costs: CostSpec) -> float:
        """At the prices of an hour."""
        of_each = (
            (self.decode_V, costs.decode_price),
            (self.student_V, costs.student_price),
            (self.teacher_V, costs.teacher_price),
        )
        return sum(float(seconds_V.sum()) * price for seconds_V, price in of_each) / 3600


def spent(scores: ClipScores, decision: Decision, costs: CostSpec) -> Spent:
    """What a decision costs."""
    student_N, teacher_N = decision.student_N, decision.teacher_N
    if not costs.seek:
        decode_V = _decoding(scores, np.ones(len(scores), np.bool_), costs.open, costs.decode, costs)
        if decision.in_two_passes:
            decode_V = decode_V + _decoding(scores, teacher_N, costs.open, costs.decode, costs)
    elif costs.student_decode is None:
        decode_V = _decoding(scores, student_N | teacher_N, costs.open, costs.decode, costs)
    else:
        decode_V = _decoding(scores, student_N, costs.open, costs.student_decode, costs)
        decode_V = decode_V + _decoding(scores, teacher_N, costs.open, costs.decode, costs)
    return Spent(
        decode_V,
        _count(scores, student_N) * costs.student,
        _count(scores, teacher_N) * costs.teacher,
    )


def _count(scores: ClipScores, wanted_N: Bools) -> Floats:
    """Clips of each video that are wanted; (V,)."""
    return np.bincount(scores.video_N, wanted_N, scores.num_videos).astype(np.float64)


def _decoding(scores: ClipScores, wanted_N: Bools, open_s: float, rate: float, costs: CostSpec) -> Floats:
    """Seconds to open each video and decode some of its clips; (V,)."""
    rows = np.flatnonzero(wanted_N)
    video, start = scores.video_N[rows], scores.start_us_N[rows] / US
    end = scores.end_us_N[rows] / US
    begin = np.floor(start / costs.key_frame_distance) * costs.key_frame_distance
    follows = np.flatnonzero(video[1:] == video[:-1]) + 1
    begin[follows] = np.maximum(begin[follows], end[follows - 1])
    seconds_V = np.bincount(video, np.maximum(end - begin, 0.0) * rate, scores.num_videos)
    return seconds_V + open_s * (np.bincount(video, minlength=scores.num_videos) > 0)
