"""What an export is made from, and the files that it is: the seam that all formats share. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.labelled import LabelledVideo, class_name
from pipeline.review import Review
from pipeline.segments import Segment


@dataclass(frozen=True, slots=True)
class Row:
    """A video, and why it should be looked at."""

    video: LabelledVideo
    review: Review


@dataclass(frozen=True)
class Export:
    """Videos in the order in which they are to come. ``source`` names the label store; ``classes`` are all classes, by
    name, in the order of the logits."""

    source: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    def name_of(self, segment: Segment) -> str:
        return class_name(self.classes, segment.top1)


@dataclass(frozen=True)
class OutFile:
    """A file of an export: its path in the folder that was asked for (empty where a single file was), and a function
    that renders it, so that no more than one need be held at a time."""

    path: str
    render: Callable[[], bytes]


def as_json(body: Any) -> bytes:
    return (json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class FileRows:
    """Rows of one file: the whole of it, or parts that the manifest names by their times. ``stem`` is its name without
    the ending, made different from all others."""

    uri: str
    stem: str
    rows: tuple[Row, ...]


def by_file(rows: tuple[Row, ...]) -> tuple[FileRows, ...]:
    """The rows of each file together, in the order in which files first come.

    Files in two folders may be called alike: all that are get the beginning of their first video's id.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.video.uri, []).append(row)
    stems = {uri: PurePosixPath(uri).stem or "video" for uri in groups}
    alike: dict[str, int] = {}
    for stem in stems.values():
        alike[stem.casefold()] = alike.get(stem.casefold(), 0) + 1
    return tuple(
        FileRows(
            uri,
            stems[uri]
            if alike[stems[uri].casefold()] == 1
            else f"{stems[uri]}-{group[0].video.video_id[:12]}",
            tuple(sorted(group, key=lambda row: (row.video.begins_us, row.video.video_id))),
        )
        for uri, group in groups.items()
    )
