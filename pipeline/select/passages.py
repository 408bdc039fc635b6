"""Long videos by passages: clips that follow each other without a gap, at most so long. What policies decide by video
they decide by passage: an hour-long film has no doubt of its own.

Gaps are clips of which nothing is known, as where they were left out as idle.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.select.decision import Decision, Policy
from pipeline.select.scores import ClipScores
from schemas.arrays import I64
from schemas.clip import US

_CHANGE, _LEAST = 3.0, 0.01
"""What a change of class costs, in nats (it must make what was said twenty times likelier), and the least probability
that a word gives: one clip says 4.6 nats at most."""


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
    """The same clips, with passages for videos; each keeps its video's id. The same object each time: what is computed
    of it, as scores in context, is then computed once for all members of a policy."""
    key = (seconds, stride)
    if key not in scores.by_passage:
        scores.by_passage[key] = with_videos(scores, passages_of(scores, seconds, stride))
    return scores.by_passage[key]


def with_videos(scores: ClipScores, number_N: I64) -> ClipScores:
    """The same clips, with parts of videos for videos, which are numbered in the order of rows."""
    video_P = scores.video_N[np.flatnonzero(np.diff(number_N, prepend=-1))]
    ids = tuple(scores.ids_V[v] for v in video_P.tolist())
    return replace(scores, video_N=number_N, ids_V=ids, hash_V=scores.hash_V[video_P])


def steady(scores: ClipScores, word_NK: NDArray[np.float64]) -> I64:
    """The number of each clip's part of its passage, 0 and on in the order of rows; (N,). A passage is cut where what
    is said of its clips (probabilities; rows of nan say nothing) changes for good: along the likeliest path through the
    classes, of which each change costs `_CHANGE` (Viterbi). One clip in the midst that says otherwise does not cut
    it."""
    log_NK = np.log(np.clip(np.nan_to_num(word_NK, nan=1.0), _LEAST, 1.0))
    num_classes = log_NK.shape[1]
    best_K, came_from = np.zeros(num_classes), np.zeros(log_NK.shape, np.int64)
    top_N = np.zeros(len(scores), np.int64)
    stay_K = np.arange(num_classes)
    new_N = np.diff(scores.video_N, prepend=-1) != 0
    for i, new in enumerate(new_N.tolist()):
        if new:
            best_K, came_from[i] = log_NK[i], stay_K
        else:
            top = int(best_K.argmax())
            changes_K = best_K[top] - _CHANGE > best_K
            came_from[i] = np.where(changes_K, top, stay_K)
            best_K = np.where(changes_K, best_K[top] - _CHANGE, best_K) + log_NK[i]
        top_N[i] = best_K.argmax()
    path_N = np.zeros(len(scores), np.int64)
    ends_N = np.append(new_N[1:], True)
    state = 0
    for i in range(len(scores) - 1, -1, -1):
        state = int(top_N[i]) if ends_N[i] else state
        path_N[i] = state
        state = int(came_from[i, state])
    changed_N = np.diff(path_N, prepend=-1) != 0
    return np.asarray(np.cumsum(new_N | changed_N) - 1)


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
