"""``fiftyone``: a dataset of FiftyOne's type ``FiftyOneVideoLabelsDataset``. Pure.

``manifest.json`` names each file and its labels, ``labels/*.json`` has them: the fields ``prediction`` (a
classification with confidence), ``review`` and ``reason``, and ``segments``, which are temporal detections; frames are
counted from 1, both within. Files are named where they are, and not copied.

A file with labelled parts has these as temporal detections too, in ``parts``, and none of the fields that are of a
whole file. Without a known frame rate there are no temporal detections.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pipeline.exports.document import Export, FileRows, OutFile, Row, as_json, by_file
from pipeline.exports.frames import frame_span

_DATASET = "eta.core.datasets.LabeledVideoDataset"
_ATTRIBUTE = "eta.core.data.CategoricalAttribute"
_EVENT = "eta.core.events.VideoEvent"


def fiftyone_files(export: Export) -> Iterator[OutFile]:
    """The labels of each file of videos, and the manifest."""
    files = by_file(export.rows)
    for file in files:
        yield OutFile(_labels_path(file), partial(_render, export, file))
    yield OutFile("manifest.json", lambda: as_json(_manifest(export, files)))


def _labels_path(file: FileRows) -> str:
    return f"labels/{file.stem}.json"


def _manifest(export: Export, files: tuple[FileRows, ...]) -> dict[str, Any]:
    index = [{"data": file.uri, "labels": _labels_path(file)} for file in files]
    return {"type": _DATASET, "description": f"labels of {export.source}", "index": index}


def _render(export: Export, file: FileRows) -> bytes:
    attributes: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for row in file.rows:
        if not row.video.is_part:
            attributes += _attributes(row)
        elif row.video.first is not None:
            first = row.video.first
            bounds = row.video.begins_us, row.video.ends_us
            events += _events(row, "parts", first.name, first.probability, *bounds)
        for s in row.video.segments:
            events += _events(row, "segments", export.name_of(s), s.confidence, s.start_us, s.end_us)
    return as_json({"attrs": {"attrs": attributes}, "events": {"events": events}})


def _attributes(row: Row) -> list[dict[str, Any]]:
    first = row.video.first
    said: list[tuple[str, str, float | None]] = [
        ("review", row.review.kind, None),
        ("reason", row.review.reason, None),
    ]
    if first is not None:
        said.insert(0, ("prediction", first.name, round(first.probability, 6)))
    if row.video.label_class is not None:
        said.append(("manifest_label", row.video.label_class, None))
    return [
        {"type": _ATTRIBUTE, "name": name, "value": value}
        | ({} if confidence is None else {"confidence": confidence})
        for name, value, confidence in said
    ]


def _events(
    row: Row, name: str, label: str, confidence: float, start_us: int, end_us: int
) -> list[dict[str, Any]]:
    """One event, or none where no frame lies in it."""
    span = frame_span(start_us, end_us, row.video.fps)
    if span is None:
        return []
    support = {"ranges": f"{span.first + 1}-{span.last + 1}"}
    about = {"type": _EVENT, "name": name, "label": label, "confidence": round(confidence, 6)}
    return [about | {"support": support}]
