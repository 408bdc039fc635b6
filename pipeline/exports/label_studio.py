"""``label-studio``: tasks with predictions to import, and the labelling configuration that they fit. Pure.

``tasks.json`` has a task for each video, with one prediction: its label as a choice, and its segments as regions of a
timeline, which Label Studio counts in frames from 1, both within. ``config.xml`` is the configuration of the project.
The score of a prediction is the label's probability (within 0 and 1, which an unbiased estimate may leave), so Label
Studio can sort by it; tasks come in the order of the export.

A video that is a part of a file is a task of its own, of the whole file. Without a known frame rate a video has no
regions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

from pipeline.exports.document import Export, OutFile, Row
from pipeline.exports.frames import frame_span
from pipeline.segments import Segment

_DEFAULT_FPS = 24.0
"""What Label Studio takes where it is not told."""


def label_studio_files(export: Export) -> Iterator[OutFile]:
    """Tasks, and the configuration."""
    yield OutFile("tasks.json", lambda: _tasks(export))
    yield OutFile("config.xml", lambda: _config(export).encode())


def _tasks(export: Export) -> bytes:
    """One task a line, in a list."""
    lines = (json.dumps(_task(export, row), ensure_ascii=False, allow_nan=False) for row in export.rows)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _task(export: Export, row: Row) -> dict[str, Any]:
    video = row.video
    data = {
        "video": video.uri,
        "fps": round(video.fps, 6) if video.fps > 0 else _DEFAULT_FPS,
        "reason": row.review.reason,
        "review": row.review.kind,
        "video_id": video.video_id,
        "start_us": video.start_us,
        "end_us": video.end_us,
        "label": video.label,
    }
    said = [r for r in (_choice(row), *_regions(export, row)) if r is not None]
    prediction: dict[str, Any] = {"model_version": export.source, "result": said}
    if video.first is not None:
        prediction["score"] = _within_0_and_1(video.first.probability)
    return {
        "data": {name: value for name, value in data.items() if value is not None},
        "predictions": [prediction] if said else [],
    }


def _choice(row: Row) -> dict[str, Any] | None:
    first = row.video.first
    if first is None:
        return None
    return {
        "id": "label",
        "from_name": "label",
        "to_name": "video",
        "type": "choices",
        "value": {"choices": [first.name]},
        "score": _within_0_and_1(first.probability),
    }


def _regions(export: Export, row: Row) -> Iterator[dict[str, Any] | None]:
    return (_region(export, row, number, s) for number, s in enumerate(row.video.segments))


def _within_0_and_1(probability: float) -> float:
    return round(min(max(probability, 0.0), 1.0), 6)


def _region(export: Export, row: Row, number: int, segment: Segment) -> dict[str, Any] | None:
    span = frame_span(segment.start_us, segment.end_us, row.video.fps)
    if span is None:
        return None
    return {
        "id": f"segment-{number + 1}",
        "from_name": "segments",
        "to_name": "video",
        "type": "timelinelabels",
        "value": {
            "ranges": [{"start": span.first + 1, "end": span.last + 1}],
            "timelinelabels": [export.name_of(segment)],
        },
        "score": round(segment.confidence, 6),
    }


def _config(export: Export) -> str:
    names = [quoteattr(name) for name in export.classes]
    lines = [
        "<View>",
        '  <Header value="$reason"/>',
        '  <Video name="video" value="$video" frameRate="$fps" timelineHeight="120"/>',
        '  <TimelineLabels name="segments" toName="video">',
        *(f"    <Label value={name}/>" for name in names),
        "  </TimelineLabels>",
        '  <Choices name="label" toName="video" choice="single" showInLine="true">',
        *(f"    <Choice value={name}/>" for name in names),
        "  </Choices>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"
