"""``cvat``: one XML file a video file, in CVAT's format 1.1, to upload as the annotations of its task. Pure.

CVAT has no spans of time, so a segment is a track: a box as large as the picture that is there from its first frame
until the one after its last. A video's label is a tag of its first frame. Both are what "CVAT 1.1" imports into a task
made of that file; the task must have the labels of ``labels.json`` (paste it as the raw constructor).

Frames past the end are refused, the whole file with them, and many files hold a frame or two fewer than their length
says. So a track that ends among the last `END_FRAMES` goes on to the end, and one that begins there is left out.

Frames are counted from 0. Without a known frame rate a file has no tracks, and the tag of a part stands at frame 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from xml.etree import ElementTree as ET

from pipeline.exports.document import Export, FileRows, OutFile, Row, as_json, by_file
from pipeline.exports.frames import frame_span
from pipeline.segments import Segment

LABELS_FILE = "labels.json"
END_FRAMES = 5
_ATTRIBUTES = ("confidence", "reason")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that no XML may hold; names of files may."""


def cvat_files(export: Export) -> Iterator[OutFile]:
    """A file for each file of videos, and the labels."""
    for file in by_file(export.rows):
        yield OutFile(f"{file.stem}.xml", partial(_render, export, file))
    yield OutFile(LABELS_FILE, lambda: as_json([_label(name) for name in export.classes]))


def _label(name: str) -> dict[str, object]:
    attributes = [
        {"name": a, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
        for a in _ATTRIBUTES
    ]
    return {"name": name, "type": "any", "attributes": attributes}


def _render(export: Export, file: FileRows) -> bytes:
    root = ET.Element("annotations")
    _text(root, "version", "1.1")
    root.append(_meta(export, file))
    for frame, rows in sorted(_tagged(file).items()):
        video = rows[0].video
        image = ET.SubElement(root, "image", id=str(frame), name=f"frame_{frame:06d}")
        image.attrib |= {"width": str(video.width), "height": str(video.height)}
        for row in rows:
            _tag(image, row)
    segments = [(row, s) for row in file.rows for s in row.video.segments]
    for number, (row, segment) in enumerate(segments):
        _track(root, export, row, segment, number)
    ET.indent(root)
    text: str = ET.tostring(root, "unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _meta(export: Export, file: FileRows) -> ET.Element:
    video = file.rows[0].video
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    _text(task, "name", file.stem)
    whole = frame_span(0, video.duration_us, video.fps)
    _text(task, "size", str(whole.last + 1 if whole else 0))
    _text(task, "mode", "interpolation")
    labels = ET.SubElement(task, "labels")
    for name in export.classes:
        label = ET.SubElement(labels, "label")
        _text(label, "name", name)
        attributes = ET.SubElement(label, "attributes")
        for attribute in _ATTRIBUTES:
            about = ET.SubElement(attributes, "attribute")
            for key, value in (("name", attribute), ("mutable", "False"), ("input_type", "text")):
                _text(about, key, value)
            _text(about, "default_value", "")
            _text(about, "values", "")
    size = ET.SubElement(task, "original_size")
    _text(size, "width", str(video.width))
    _text(size, "height", str(video.height))
    _text(task, "source", file.uri)
    return meta


def _tagged(file: FileRows) -> dict[int, list[Row]]:
    """Rows with a label, by the frame at which they begin."""
    found: dict[int, list[Row]] = {}
    for row in file.rows:
        if row.video.first is not None:
            span = frame_span(row.video.begins_us, row.video.ends_us, row.video.fps)
            found.setdefault(span.first if span else 0, []).append(row)
    return found


def _tag(image: ET.Element, row: Row) -> None:
    first = row.video.first
    if first is None:
        raise ValueError("a video without a label has no tag")
    tag = ET.SubElement(image, "tag", label=first.name, source="auto")
    _attribute(tag, "confidence", f"{first.probability:.4f}")
    _attribute(tag, "reason", row.review.reason)


def _track(root: ET.Element, export: Export, row: Row, segment: Segment, number: int) -> None:
    video = row.video
    span = frame_span(segment.start_us, segment.end_us, video.fps)
    whole = frame_span(0, video.duration_us, video.fps)
    if span is None or whole is None or span.first > max(0, whole.last - END_FRAMES):
        return
    track = ET.SubElement(root, "track", id=str(number), label=export.name_of(segment), source="auto")
    ends = [(span.last + 1, "1")] if span.last + 1 <= whole.last - END_FRAMES else []
    for frame, outside in [(span.first, "0"), *ends]:
        box = ET.SubElement(track, "box", frame=str(frame), outside=outside, keyframe="1", occluded="0")
        box.attrib |= {"xtl": "0", "ytl": "0", "xbr": str(video.width), "ybr": str(video.height)}
        box.set("z_order", "0")
        _attribute(box, "confidence", f"{segment.confidence:.4f}")


def _attribute(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, "attribute", name=name).text = _NOT_XML.sub("\ufffd", text)


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _NOT_XML.sub("\ufffd", text)
