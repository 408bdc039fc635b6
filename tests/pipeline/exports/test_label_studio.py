"""Tasks and configuration, against each other, and against Label Studio's own package where it is installed."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pipeline.exports.label_studio import label_studio_files
from pipeline.labelled import Scored
from tests.pipeline.exports.rows import CLASSES, EXPORT, export_of, rendered, row


def tasks_and_config() -> tuple[list[dict[str, Any]], str]:
    files = rendered(list(label_studio_files(EXPORT)))
    assert list(files) == ["tasks.json", "config.xml"]
    return json.loads(files["tasks.json"]), files["config.xml"]


def test_tasks_are_of_the_configuration() -> None:
    tasks, text = tasks_and_config()
    config = ET.fromstring(text)
    (video,) = config.iter("Video")
    assert (video.get("value"), video.get("frameRate")) == ("$video", "$fps")
    for parent, child in (("TimelineLabels", "Label"), ("Choices", "Choice")):
        (tag,) = config.iter(parent)
        assert tag.get("toName") == video.get("name")
        assert [c.get("value") for c in tag.iter(child)] == list(CLASSES)
    tags = {t.get("name"): t for t in config.iter() if t.get("toName")}
    for task in tasks:
        assert {"video", "fps", "reason"} <= task["data"].keys()
        for region in (r for p in task["predictions"] for r in p["result"]):
            tag = tags[region["from_name"]]
            assert (tag.tag.lower(), tag.get("toName")) == (region["type"], region["to_name"])
            (name,) = region["value"][region["type"]]
            assert name in CLASSES


def test_a_task_as_it_is() -> None:
    tasks, _ = tasks_and_config()
    assert tasks[0] == {
        "data": {
            "video": "https://h/a/walk é.mp4",
            "fps": 25.0,
            "reason": 'nothing speaks against it: walk 0.75, sit "down" & <rest> 0.25',
            "review": "sure",
            "video_id": "0" * 32,
            "label": "walking",
        },
        "predictions": [
            {
                "model_version": "labels-0123456789ab",
                "score": 0.75,
                "result": [
                    {
                        "id": "label",
                        "from_name": "label",
                        "to_name": "video",
                        "type": "choices",
                        "value": {"choices": ["walk"]},
                        "score": 0.75,
                    },
                    *(
                        {
                            "id": f"segment-{n}",
                            "from_name": "segments",
                            "to_name": "video",
                            "type": "timelinelabels",
                            "value": {"ranges": [{"start": a, "end": b}], "timelinelabels": [CLASSES[n - 1]]},
                            "score": score,
                        }
                        for n, a, b, score in ((1, 1, 38, 0.8), (2, 39, 50, 0.6), (3, 76, 100, 0.5))
                    ),
                ],
            }
        ],
    }
    assert tasks[1]["predictions"] == []
    assert tasks[2]["data"]["fps"] == 24.0 and len(tasks[2]["predictions"][0]["result"]) == 1
    assert (tasks[4]["data"]["start_us"], tasks[4]["data"]["end_us"]) == (2_000_000, 4_000_000)


def test_an_estimate_beyond_one_is_a_score_of_one() -> None:
    wide = export_of(row("https://h/v.mp4", ranked=(Scored("walk", 1.25), Scored(CLASSES[1], -0.25))))
    (task,) = json.loads(rendered(list(label_studio_files(wide)))["tasks.json"])
    assert task["predictions"][0]["score"] == 1.0


def test_segments_without_a_label_are_kept() -> None:
    (task,) = json.loads(
        rendered(list(label_studio_files(export_of(row("https://h/v.mp4", ranked=())))))["tasks.json"]
    )
    (prediction,) = task["predictions"]
    assert "score" not in prediction and len(prediction["result"]) == 3


def test_label_studio_accepts_them() -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    tasks, config = tasks_and_config()
    interface = sdk.LabelInterface(config)
    interface.validate()
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
    wrong = tasks[0]["predictions"][0]
    wrong["result"][0]["value"]["choices"] = ["another class"]
    assert interface.validate_prediction(wrong, return_errors=True)
