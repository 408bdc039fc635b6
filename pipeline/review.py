"""Which videos a person should look at first, and why, in words. Pure.

A video's place is that of the first rule that holds of it; within one place the smaller margin between its first two
classes comes first, then the URI:

1. ``audit``      the dense teacher, asked at random, gives it another label
2. ``models``     student and teacher, asked about the same clips, give it different labels
3. ``manifest``   the manifest gives it another label
4. ``unlabelled`` nobody was asked about any of its clips
5. ``damaged``    some of its clips were damaged, or could not be read
6. ``close``      its first two classes are less than 0.2 apart
7. ``unsure``     its first class has a probability below 0.5
8. ``sure``       none of it
9. ``unreadable`` nothing of it could be read: there is nothing to look at

It goes by what was said, not by what is right: a video on which all agree can be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.labelled import LabelledVideo
from schemas.export import OrderName

Kind = Literal[
    "audit", "models", "manifest", "unlabelled", "damaged", "close", "unsure", "sure", "unreadable"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they should be looked at."""

WORDS: Mapping[str, str] = {
    "audit": "the audit says otherwise",
    "models": "student and teacher disagree",
    "manifest": "the manifest says otherwise",
    "unlabelled": "without a label",
    "damaged": "damaged",
    "close": "a close call",
    "unsure": "unsure",
    "sure": "nothing speaks against it",
    "unreadable": "unreadable",
}
"""A kind in words."""

CLOSE_MARGIN = 0.2
LOW_PROBABILITY = 0.5


@dataclass(frozen=True, slots=True)
class Review:
    """Why a video should be looked at: the first rule that holds, and all of them in words."""

    kind: Kind
    reason: str


def review(video: LabelledVideo) -> Review:
    """Which rules hold of a video."""
    found = sorted(_found(video), key=lambda rule: KINDS.index(rule[0])) or [_sure(video)]
    return Review(found[0][0], "; ".join(words for _, words in found))


def in_order(videos: Iterable[LabelledVideo], order: OrderName) -> list[tuple[LabelledVideo, Review]]:
    """The videos with their reviews: what should be looked at first, or by URI and time."""
    reviewed = [(video, review(video)) for video in videos]
    if order == "uri":
        return sorted(reviewed, key=lambda pair: _by_uri(pair[0]))
    return sorted(reviewed, key=lambda pair: (KINDS.index(pair[1].kind), pair[0].margin, *_by_uri(pair[0])))


def _by_uri(video: LabelledVideo) -> tuple[str, int, str]:
    return video.uri, video.begins_us, video.video_id


def _found(video: LabelledVideo) -> Iterable[tuple[Kind, str]]:
    """The rules that hold, but for that of being sure."""
    first = video.first
    if not video.readable:
        yield "unreadable", f"could not be read ({video.failure or 'nothing is known of it'})"
        return
    if first is None:
        yield "unlabelled", "nobody was asked about it"
    if first is not None and video.audit is not None and video.audit != first.name:
        yield "audit", f"labelled {first.name}, the dense teacher says {video.audit}"
    elif video.student is not None and video.teacher is not None and video.student != video.teacher:
        yield "models", f"the student says {video.student}, the teacher {video.teacher}"
    if first is not None and video.label_class is not None and video.label_class != first.name:
        yield "manifest", f"labelled {first.name}, the manifest says {video.label_class}"
    if video.damaged or video.missing:
        yield "damaged", _damage(video)
    if len(video.ranked) > 1 and video.margin < CLOSE_MARGIN:
        yield "close", f"a close call: {_shown(video)}"
    elif first is not None and first.probability < LOW_PROBABILITY:
        yield "unsure", f"no class is likely: {_shown(video)}"


def _damage(video: LabelledVideo) -> str:
    planned = video.clips + video.missing
    parts = [f"{video.damaged} damaged"] if video.damaged else []
    parts += [f"{video.missing} missing"] if video.missing else []
    return f"{' and '.join(parts)} of {planned} clips"


def _sure(video: LabelledVideo) -> tuple[Kind, str]:
    return "sure", f"nothing speaks against it: {_shown(video)}"


def _shown(video: LabelledVideo) -> str:
    return ", ".join(f"{s.name} {s.probability:.2f}" for s in video.ranked[:2])
