"""A labelled video: all that is known of one after `locum label`, with names for its classes. What exports are made of.

It does not know stores, nor any format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.segments import Segment


@dataclass(frozen=True, slots=True)
class Scored:
    """A class by name, and its probability."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """One video. What is None is not known: a ``start_us`` of None is a whole file's, a ``duration_us`` of 0 that of a
    file that could not be probed.

    ``label`` is the manifest's word, ``label_class`` the class that it means, None where it means none.
    ``ranked`` are the classes that the label was chosen from, best first: empty where nobody was asked. ``student``
    and ``teacher`` are what each says of those clips that both were asked about, and ``audit`` what the dense teacher
    says, where the video was audited. ``missing`` counts clips without a row; ``failure`` says why.
    """

    uri: str
    video_id: str
    start_us: int | None = None
    end_us: int | None = None
    duration_us: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    label: str | None = None
    label_class: str | None = None
    ranked: tuple[Scored, ...] = ()
    student: str | None = None
    teacher: str | None = None
    audit: str | None = None
    clips: int = 0
    deferred: int = 0
    damaged: int = 0
    missing: int = 0
    failure: str | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def first(self) -> Scored | None:
        """Its label."""
        return self.ranked[0] if self.ranked else None

    @property
    def margin(self) -> float:
        """How much more probable its first class is than its second; 0 where it has no label."""
        if not self.ranked:
            return 0.0
        second = self.ranked[1].probability if len(self.ranked) > 1 else 0.0
        return self.ranked[0].probability - second

    @property
    def readable(self) -> bool:
        """Whether any of its clips could be read."""
        return self.clips > 0

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a file that was named by its times."""
        return self.start_us is not None or self.end_us is not None

    @property
    def begins_us(self) -> int:
        return self.start_us or 0

    @property
    def ends_us(self) -> int:
        return self.duration_us if self.end_us is None else self.end_us


def class_name(classes: Sequence[str], number: int) -> str:
    """The name of a class; ``class 3`` where classes have none."""
    return classes[number] if classes else f"class {number}"


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of all classes."""
    return tuple(class_name(classes, n) for n in range(count))
