"""Rows to export, for tests of formats: awkward names, overlapping words, parts of a film, a rate that is not known."""

from __future__ import annotations

from pipeline.exports.document import Export, OutFile, Row
from pipeline.labelled import LabelledVideo, Scored
from pipeline.review import review
from pipeline.segments import Segment

CLASSES = ("walk", 'sit "down" & <rest>', "class --> 2")


def row(uri: str, number: int = 0, **changes: object) -> Row:
    fields: dict[str, object] = {
        "uri": uri,
        "video_id": f"{number:032x}",
        "duration_us": 4_000_000,
        "width": 320,
        "height": 240,
        "fps": 25.0,
        "label": "walking",
        "label_class": "walk",
        "ranked": (Scored(CLASSES[0], 0.75), Scored(CLASSES[1], 0.25)),
        "clips": 4,
        "deferred": 1,
        "segments": (
            Segment(0, 1_500_000, 0, 0.8, 2, 1, 0),
            Segment(1_500_000, 2_000_000, 1, 0.6, 1, 0, 1),
            Segment(3_000_000, 4_000_000, 2, 0.5, 1, 0, 0),
        ),
    }
    video = LabelledVideo(**{**fields, **changes})  # type: ignore[arg-type]
    return Row(video, review(video))


def export_of(*rows: Row) -> Export:
    return Export("labels-0123456789ab", CLASSES, rows)


WHOLE = row("https://h/a/walk é.mp4")
UNLABELLED = row("https://h/b/none.mp4", 1, ranked=(), segments=(), label=None, label_class=None)
NO_RATE = row("https://h/b/no rate.mp4", 2, fps=0.0)
PARTS = (
    row(
        "https://h/film.mp4",
        3,
        start_us=0,
        end_us=2_000_000,
        segments=(Segment(0, 2_000_000, 0, 0.7, 2, 0, 0),),
    ),
    row(
        "https://h/film.mp4",
        4,
        start_us=2_000_000,
        end_us=4_000_000,
        ranked=(Scored(CLASSES[2], 0.5), Scored(CLASSES[0], 0.5)),
        segments=(Segment(2_000_000, 4_000_000, 2, 0.6, 2, 0, 0),),
    ),
)
EXPORT = export_of(WHOLE, UNLABELLED, NO_RATE, *PARTS)


def rendered(files: list[OutFile]) -> dict[str, str]:
    return {file.path: file.render().decode() for file in files}
