"""JSON lines."""

from __future__ import annotations

import json

from pipeline.exports.lines import jsonl_files
from tests.pipeline.exports.rows import CLASSES, EXPORT, rendered


def test_every_video_is_a_line_with_its_segments() -> None:
    (text,) = rendered(list(jsonl_files(EXPORT))).values()
    found = [json.loads(line) for line in text.splitlines()]
    assert [r["video_id"] for r in found] == [r.video.video_id for r in EXPORT.rows]
    assert found[0]["segments"][1] == {
        "start_us": 1_500_000,
        "end_us": 2_000_000,
        "name": CLASSES[1],
        "confidence": 0.6,
        "clips": 1,
        "teacher_clips": 0,
        "damaged_clips": 1,
    }
    assert found[0]["next"] == [{"name": CLASSES[1], "probability": 0.25}]
    assert found[1]["top1"] is None and found[1]["segments"] == found[1]["next"] == []
    assert (found[3]["start_us"], found[3]["end_us"]) == (0, 2_000_000)
