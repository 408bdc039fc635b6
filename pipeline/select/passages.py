"""Long videos by passages: clips that follow each other without a gap, at most so long. What policies decide by video
they decide by passage: an hour-long film has no doubt of its own.

Gaps are clips of which nothing is known, as where they were left out as idle.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.select.decision import Decision, Policy
from pipeline.select.scores import ClipScores
from schemas.arrays import I64
from schemas.clip import US


def passages_of(scores: ClipScores, seconds: float, stride: float) -> I64:
    """The number of each clip's passage, 0 and on in the order of rows; (N,). A clip that begins more than one and a
    half ``stride`` after the one before begins another; what is longer than ``seconds`` is cut into parts of equally
    many clips, as near as may be."""
    start_us, end_us = scores.start_us_N, scores.end_us_N
    new_N = np.ones(len(scores), np.bool_)
    new_N[1:] = (scores.video_N[1:] != scores.video_N[:-1]) | (np.diff(start_us) > 1.5 * stride * US)
    run_N = np.cumsum(new_N) - 1
    first_R = np.flatnonzero(new_N)
    size_R = np.diff(np.append(first_R, len(scores)))
    room_us_R = seconds * US - (end_us - start_us)[first_R]
    most_R = np.maximum(np.floor(room_us_R / (stride * US) + 1e-9).astype(np.int64) + 1, 1)
    parts_R = -(-size_R // most_R)
    place_N = np.arange(len(scores)) - first_R[run_N]
    part_N = place_N * parts_R[run_N] // size_R[run_N]
    return np.asarray((np.cumsum(parts_R) - parts_R)[run_N] + part_N)


def by_passage(scores: ClipScores, seconds: float, stride: float) -> ClipScores:
    """The same clips, with passages for videos; each keeps its video's id."""
    passage_N = passages_of(scores, seconds, stride)
    first_P = np.flatnonzero(np.diff(passage_N, prepend=-1))
    video_P = scores.video_N[first_P]
    ids = tuple(scores.ids_V[v] for v in video_P.tolist())
    return replace(scores, video_N=passage_N, ids_V=ids, hash_V=scores.hash_V[video_P])


@dataclass(frozen=True)
class ByPassage:
    """Decides on passages as ``policy`` would on videos."""

    policy: Policy
    seconds: float
    stride: float

    @property
    def couples_videos(self) -> bool:
        return self.policy.couples_videos

    @property
    def asks_student(self) -> bool:
        return self.policy.asks_student

    def select(self, scores: ClipScores) -> Decision:
        return self.policy.select(by_passage(scores, self.seconds, self.stride))
