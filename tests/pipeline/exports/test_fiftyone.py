"""FiftyOne's video labels: as they are, and as its importer reads them where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.exports.fiftyone import fiftyone_files
from tests.pipeline.exports.rows import CLASSES, EXPORT, rendered


def files() -> dict[str, str]:
    return rendered(list(fiftyone_files(EXPORT)))


def test_the_manifest_names_each_file_once_and_comes_last() -> None:
    found = files()
    *labels, last = found
    assert last == "manifest.json"
    manifest = json.loads(found[last])
    assert manifest["type"] == "eta.core.datasets.LabeledVideoDataset"
    assert [r["labels"] for r in manifest["index"]] == labels
    assert [r["data"] for r in manifest["index"]] == list(dict.fromkeys(r.video.uri for r in EXPORT.rows))


def test_labels_of_a_file_as_they_are() -> None:
    said = {"type": "eta.core.data.CategoricalAttribute"}
    body = json.loads(files()["labels/walk é.json"])
    assert body["attrs"]["attrs"] == [
        said | {"name": "prediction", "value": "walk", "confidence": 0.75},
        said | {"name": "review", "value": "sure"},
        said | {"name": "reason", "value": EXPORT.rows[0].review.reason},
        said | {"name": "manifest_label", "value": "walk"},
    ]
    assert body["events"]["events"] == [
        {
            "type": "eta.core.events.VideoEvent",
            "name": "segments",
            "label": CLASSES[n],
            "confidence": confidence,
            "support": {"ranges": ranges},
        }
        for n, confidence, ranges in ((0, 0.8, "1-38"), (1, 0.6, "39-50"), (2, 0.5, "76-100"))
    ]


def test_parts_are_events_and_what_is_not_known_is_left_out() -> None:
    found = {name: json.loads(text) for name, text in files().items() if name != "manifest.json"}
    film = found["labels/film.json"]
    assert film["attrs"]["attrs"] == []
    assert [(e["name"], e["label"], e["support"]["ranges"]) for e in film["events"]["events"]] == [
        ("parts", "walk", "1-50"),
        ("segments", "walk", "1-50"),
        ("parts", CLASSES[2], "51-100"),
        ("segments", CLASSES[2], "51-100"),
    ]
    assert found["labels/no rate.json"]["events"]["events"] == []
    assert [a["name"] for a in found["labels/none.json"]["attrs"]["attrs"]] == ["review", "reason"]


def test_fiftyone_imports_it(tmp_path: Path) -> None:
    """By the importer alone, which needs no database."""
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="fiftyone is not installed")
    (tmp_path / "labels").mkdir()
    for path, text in files().items():
        (tmp_path / path).write_text(text)
    with importers.FiftyOneVideoLabelsDatasetImporter(str(tmp_path)) as importer:
        found = {Path(path).name: label or {} for path, _, label, _ in importer}
    assert list(found) == ["walk é.mp4", "none.mp4", "no rate.mp4", "film.mp4"]
    whole = found["walk é.mp4"]
    assert (whole["prediction"].label, whole["prediction"].confidence) == ("walk", 0.75)
    assert [(d.label, d.support) for d in whole["segments"].detections] == [
        (CLASSES[0], [1, 38]),
        (CLASSES[1], [39, 50]),
        (CLASSES[2], [76, 100]),
    ]
    assert {d.label for d in found["film.mp4"]["parts"].detections} == {"walk", CLASSES[2]}
