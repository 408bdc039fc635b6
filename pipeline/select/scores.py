"""What a policy sees of clips: what the student says of each, and of which video it is.

Rows are sorted by video and time, so that ties among them do not depend on which shard a video came from. Nothing here
knows what the teacher says, or what is right.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.draws import draws_of
from pipeline.uncertainty import entropy, margin, msp, softmax
from schemas.arrays import I64, U64, Bools, Float32

Floats = NDArray[np.float64]

_OF_AUDITS, _OF_CLIPS = np.uint64(0xA0D1_7000_0000_0001), np.uint64(0xC11B_5000_0000_0002)
"""So that draws for one purpose say nothing of those for another, nor of a certificate's, of the same seed."""


class InVideo(Protocol):
    """How likely student and teacher are right about each clip, and the student's word on its video is, by what the
    student says of all that it has seen of the video; nan where it has not looked. See `pipeline.select.context`."""

    def rights(self, scores: ClipScores) -> tuple[Floats, Floats, Floats]: ...


@dataclass(frozen=True)
class ClipScores:
    """``video_N`` numbers the videos 0.. in the order of ``ids_V``, ``hash_V`` has 64 bits of each id. The rest is the
    student's: ``probs_NK``, and how likely it, and the teacher, is right; nan where it has not looked yet."""

    video_N: I64
    start_us_N: I64
    end_us_N: I64
    ids_V: tuple[str, ...]
    hash_V: U64
    probs_NK: Float32
    student_right_N: Float32
    teacher_right_N: Float32
    context: InVideo | None = None
    """What scores in context come from, where there is such a thing."""

    def __len__(self) -> int:
        return len(self.video_N)

    @property
    def num_videos(self) -> int:
        return len(self.ids_V)

    @property
    def size_V(self) -> I64:
        """Number of clips of each video; (V,)."""
        return np.bincount(self.video_N, minlength=self.num_videos)

    def seen(self, looked_N: Bools) -> ClipScores:
        """The same, as if the student had looked at these clips alone: nan where it has not."""
        hide = {
            name: getattr(self, name).copy() for name in ("probs_NK", "student_right_N", "teacher_right_N")
        }
        for values in hide.values():
            values[~looked_N] = np.nan
        return replace(self, **hide)

    def only(self, rows_N: Bools) -> ClipScores:
        """Some of the clips, and the videos that have any of them."""
        kept = {n: getattr(self, n)[rows_N] for n in _OF_CLIP}
        there_V, video_N = np.unique(self.video_N[rows_N], return_inverse=True)
        ids_V = tuple(self.ids_V[v] for v in there_V.tolist())
        return replace(self, **kept, video_N=video_N, ids_V=ids_V, hash_V=self.hash_V[there_V])

    @cached_property
    def rights_in_context_N(self) -> tuple[Floats, Floats, Floats]:
        """How likely student and teacher are right, and the student's word on the video is, by all that was seen of it;
        (N,) each.

        Raises
        ------
        ValueError
            If nothing was fitted that says so.
        """
        if self.context is None:
            raise ValueError("a score in context wants heads that were fitted for it")
        return self.context.rights(self)

    @cached_property
    def by_passage(self) -> dict[tuple[float, float], ClipScores]:
        """The same clips with passages for videos, by seconds and stride, as they were asked for; see
        `pipeline.select.passages`."""
        return {}

    def clip_draws(self, seed: int) -> Floats:
        """A number in [0, 1) for each clip; (N,)."""
        with np.errstate(over="ignore"):
            at_N = self.start_us_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            return draws_of(self.hash_V[self.video_N] ^ at_N ^ _OF_CLIPS, seed)


def hashes_of(video_ids: Sequence[str]) -> U64:
    """64 bits of each id, which are hex digits; (V,)."""
    return np.array([int(i[:16], 16) for i in video_ids], np.uint64)


def audit_draws(hash_V: U64, seed: int) -> Floats:
    """A number in [0, 1) for each video, for audits; (V,)."""
    return draws_of(hash_V ^ _OF_AUDITS, seed)


_OF_CLIP = ("start_us_N", "end_us_N", "probs_NK", "student_right_N", "teacher_right_N")


def clip_scores(
    video_ids: list[str],
    start_us_N: I64,
    end_us_N: I64,
    logits_NK: Float32,
    student_right_N: Float32,
    teacher_right_N: Float32,
    context: InVideo | None = None,
) -> ClipScores:
    """Scores from columns of predictions, which may stand in any order; the rows come sorted. Video ids are hex digits.
    ``logits_NK`` are the student's, divided by its temperature.

    Raises
    ------
    ValueError
        If there is no row, or a clip comes twice.
    """
    if not video_ids:
        raise ValueError("there are no clips to choose from")
    ids, number_N = np.unique(np.array(video_ids), return_inverse=True)
    order_N = np.lexsort((start_us_N, number_N))
    video_N, at_N = number_N[order_N].astype(np.int64), start_us_N[order_N]
    twice = np.flatnonzero((np.diff(video_N) == 0) & (np.diff(at_N) == 0))
    if len(twice):
        raise ValueError(f"clip {at_N[twice[0]]} us of {ids[video_N[twice[0]]]} comes twice")
    return ClipScores(
        video_N=video_N,
        start_us_N=at_N,
        end_us_N=end_us_N[order_N],
        ids_V=tuple(ids.tolist()),
        hash_V=hashes_of(ids.tolist()),
        probs_NK=softmax(logits_NK[order_N]),
        student_right_N=student_right_N[order_N],
        teacher_right_N=teacher_right_N[order_N],
        context=context,
    )


SCORES: Mapping[str, Callable[[ClipScores], Floats]] = MappingProxyType(
    {
        "msp": lambda s: -msp(s.probs_NK).astype(np.float64),
        "margin": lambda s: -margin(s.probs_NK).astype(np.float64),
        "entropy": lambda s: entropy(s.probs_NK).astype(np.float64),
        "confidence": lambda s: -s.student_right_N.astype(np.float64),
        "gain": lambda s: s.teacher_right_N.astype(np.float64) - s.student_right_N,
        "teacher": lambda s: s.teacher_right_N.astype(np.float64),
        "confidence-in-context": lambda s: -s.rights_in_context_N[0],
        "gain-in-context": lambda s: s.rights_in_context_N[1] - s.rights_in_context_N[0],
        "teacher-in-context": lambda s: s.rights_in_context_N[1],
        "video-in-context": lambda s: 1.0 - s.rights_in_context_N[2],
    }
)
"""How much a clip wants the teacher, (N,): the higher, the sooner. By max-probability, margin and entropy of the
student, by how likely it is wrong, by how much likelier the teacher is right than it, and by how likely the teacher is
right: what a learned sampler goes by, which leaves out clips that say nothing. In context: by what the student says of
the whole video; and how likely its word on that is wrong, of which all clips of a video have the same."""


def deferral(scores: ClipScores, name: str) -> Floats:
    """`SCORES` by name; (N,).

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in SCORES:
        raise ValueError(f"there is no score {name!r}: {', '.join(SCORES)}")
    return SCORES[name](scores)


def first_by_video(scores: ClipScores, value_N: Floats) -> NDArray[np.intp]:
    """Rank of each clip among those of its video by falling value, 0 for the highest; equal ones by time. (N,)"""
    order_N = np.lexsort((np.arange(len(scores)), -value_N, scores.video_N))
    start_V = np.searchsorted(scores.video_N, np.arange(scores.num_videos))
    rank_N = np.empty(len(scores), np.intp)
    rank_N[order_N] = np.arange(len(scores)) - start_V[scores.video_N[order_N]]
    return rank_N
