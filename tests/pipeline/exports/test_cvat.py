"""CVAT's XML: as its importer walks through it, and as Datumaro reads it where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pipeline.exports.cvat import END_FRAMES, cvat_files
from pipeline.segments import Segment
from tests.pipeline.exports.rows import CLASSES, EXPORT, export_of, rendered, row


def files() -> dict[str, str]:
    return rendered(list(cvat_files(EXPORT)))


def tracks(text: str) -> list[tuple[str, list[tuple[int, bool]]]]:
    """Label, and frames with whether it is outside from there on."""
    return [
        (t.attrib["label"], [(int(b.attrib["frame"]), b.attrib["outside"] == "1") for b in t.iter("box")])
        for t in ET.fromstring(text).iter("track")
    ]


def tags(text: str) -> list[tuple[int, str]]:
    images = ET.fromstring(text).iter("image")
    return [(int(i.attrib["id"]), t.attrib["label"]) for i in images for t in i.iter("tag")]


def test_segments_are_tracks_and_labels_are_tags() -> None:
    found = files()
    assert list(found) == ["walk é.xml", "none.xml", "no rate.xml", "film.xml", "labels.json"]
    assert tracks(found["walk é.xml"]) == [
        (CLASSES[0], [(0, False), (38, True)]),
        (CLASSES[1], [(38, False), (50, True)]),
        (CLASSES[2], [(75, False)]),  # to the end: there is no frame after it
    ]
    assert tags(found["walk é.xml"]) == [(0, "walk")]
    assert tracks(found["none.xml"]) == tags(found["none.xml"]) == tracks(found["no rate.xml"]) == []
    assert tags(found["no rate.xml"]) == [(0, "walk")]
    assert tags(found["film.xml"]) == [(0, "walk"), (50, CLASSES[2])]


def test_boxes_are_the_picture_and_frames_are_of_the_task() -> None:
    for name, text in files().items():
        if not name.endswith(".xml"):
            continue
        root = ET.fromstring(text)
        task = root.find("meta/task")
        assert root.findtext("version") == "1.1" and task is not None
        size = int(task.findtext("size") or 0)
        for box in root.iter("box"):
            assert [box.get(k) for k in ("xtl", "ytl", "xbr", "ybr")] == ["0", "0", "320", "240"]
            assert box.get("keyframe") == "1" and int(box.attrib["frame"]) < size
        for image in root.iter("image"):
            assert image.get("name") == f"frame_{int(image.attrib['id']):06d}"
            assert image.get("id") == "0" or int(image.attrib["id"]) < size


def test_the_last_frames_may_not_be_there() -> None:
    """100 frames by the length of the file: nothing is said of the last five."""
    segments = tuple(
        Segment(a * 40_000, b * 40_000, 0, 0.5, 1, 0, 0) for a, b in ((0, 94), (94, 95), (96, 100))
    )
    (text, _) = rendered(list(cvat_files(export_of(row("/v.mp4", segments=segments))))).values()
    assert tracks(text) == [(CLASSES[0], [(0, False), (94, True)]), (CLASSES[0], [(94, False)])]
    frames = [int(b.attrib["frame"]) for b in ET.fromstring(text).iter("box")]
    assert max(frames) < 100 - END_FRAMES


def test_labels_are_declared_with_the_attributes_that_are_used() -> None:
    found = files()
    labels = json.loads(found["labels.json"])
    assert [label["name"] for label in labels] == list(CLASSES)
    declared = {a["name"] for a in labels[0]["attributes"]}
    used = {
        a.attrib["name"]
        for n, t in found.items()
        if n.endswith(".xml")
        for a in ET.fromstring(t).iter("attribute")
        if a.get("name")
    }
    assert used == declared == {"confidence", "reason"}


def test_names_that_no_xml_may_hold() -> None:
    text = rendered(list(cvat_files(export_of(row("/v/a\x01b.mp4")))))["a\x01b.xml"]
    assert ET.fromstring(text).findtext("meta/task/source") == "/v/a�b.mp4"


def test_datumaro_reads_it(tmp_path: Path) -> None:
    dm = pytest.importorskip("datumaro", reason="datumaro is not installed")
    (tmp_path / "a.xml").write_text(files()["walk é.xml"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "frame_000000").write_bytes(b"")  # it wants to see the picture that has a tag
    dataset = dm.Dataset.import_from(str(tmp_path), "cvat")
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    assert names == list(CLASSES)
    found = [
        (item.attributes["frame"], a.type.name, names[a.label], a.attributes.get("outside"))
        for item in dataset
        for a in item.annotations
    ]
    assert sorted(found, key=str) == sorted(
        [
            (0, "label", CLASSES[0], None),
            (0, "bbox", CLASSES[0], False),
            (38, "bbox", CLASSES[0], True),
            (38, "bbox", CLASSES[1], False),
            (50, "bbox", CLASSES[1], True),
            (75, "bbox", CLASSES[2], False),
        ],
        key=str,
    )
