"""Segments: stretches of a video over which the answers about its clips agree. Pure.

Clips may overlap (strides shorter than a clip, last clips that cover a remainder) and may leave gaps (`max_clips`).
What an instant is called follows from three rules:

1. A clip that nobody was asked about says nothing. Where an answered clip covers some of its time, that time is the
   answered one's; the rest is a gap.
2. Time that two neighbouring answered clips share is cut in its middle: each instant goes to the clip whose middle is
   nearer, where clips are of one length.
3. What was cut so is merged where it touches and has the same class. A gap parts segments, whatever their classes.

A clip with damaged frames counts like any other, as it does in its video's label; a segment says how many it has.

It does not know names of classes, and nothing of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class ClipWord:
    """What was answered about one clip; ``top1`` is None where nobody was asked."""

    start_us: int
    end_us: int
    top1: int | None
    confidence: float
    by_teacher: bool = False
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """``[start_us, end_us)`` of a file. ``confidence`` is the mean of its clips', each weighted by the time that is
    its own here."""

    start_us: int
    end_us: int
    top1: int
    confidence: float
    clips: int
    teacher_clips: int
    damaged_clips: int


def segments_of(clips: Iterable[ClipWord]) -> tuple[Segment, ...]:
    """The segments of one video, in order of time; they do not overlap.

    Raises
    ------
    ValueError
        If the clips are not sorted, one is empty, or one lies within its neighbour.
    """
    found: list[Segment] = []
    run: list[tuple[int, int, ClipWord]] = []
    for start_us, end_us, clip in _shares([c for c in clips if c.top1 is not None]):
        if run and (run[-1][1] != start_us or run[-1][2].top1 != clip.top1):
            found.append(_merged(run))
            run = []
        run.append((start_us, end_us, clip))
    if run:
        found.append(_merged(run))
    return tuple(found)


def _shares(clips: Sequence[ClipWord]) -> Iterable[tuple[int, int, ClipWord]]:
    """Each clip's own time; clips whose time is all their neighbours' are left out."""
    for before, after in pairwise(clips):
        if after.start_us <= before.start_us or after.end_us < before.end_us:
            raise ValueError(
                f"clips must come in order: {after.start_us} to {after.end_us} us after {before.start_us} to "
                f"{before.end_us} us"
            )
    for i, clip in enumerate(clips):
        if clip.end_us <= clip.start_us:
            raise ValueError(f"an empty clip: {clip.start_us} to {clip.end_us} us")
        start_us = max(clip.start_us, _middle(clips[i - 1], clip)) if i else clip.start_us
        end_us = min(clip.end_us, _middle(clip, clips[i + 1])) if i + 1 < len(clips) else clip.end_us
        if start_us < end_us:
            yield start_us, end_us, clip


def _middle(before: ClipWord, after: ClipWord) -> int:
    """Where the time that both cover, or that neither does, is cut."""
    return (after.start_us + before.end_us) // 2


def _merged(run: Sequence[tuple[int, int, ClipWord]]) -> Segment:
    start_us, end_us, top1 = run[0][0], run[-1][1], run[0][2].top1
    if top1 is None:
        raise ValueError("a clip without an answer has no segment")
    mean = sum((end - start) * clip.confidence for start, end, clip in run) / (end_us - start_us)
    low, high = (f(clip.confidence for _, _, clip in run) for f in (min, max))
    return Segment(
        start_us=start_us,
        end_us=end_us,
        top1=top1,
        confidence=min(max(mean, low), high),  # rounding must not lead out of what was said
        clips=len(run),
        teacher_clips=sum(clip.by_teacher for _, _, clip in run),
        damaged_clips=sum(clip.damaged for _, _, clip in run),
    )
