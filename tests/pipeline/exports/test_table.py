"""CSV, as the standard library reads it back."""

from __future__ import annotations

import csv
import io

from pipeline.exports.document import Export
from pipeline.exports.table import csv_files
from tests.pipeline.exports.rows import CLASSES, EXPORT, PARTS, export_of, rendered, row


def table(export: Export) -> list[dict[str, str]]:
    (text,) = rendered(list(csv_files(export))).values()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_every_video_is_a_row() -> None:
    rows = table(EXPORT)
    assert [r["uri"] for r in rows] == [r.video.uri for r in EXPORT.rows]
    assert [r["reason"] for r in rows] == [r.review.reason for r in EXPORT.rows]
    assert (rows[0]["top1"], rows[0]["probability"]) == ("walk", "0.75")
    assert (rows[0]["class_2"], rows[0]["probability_2"], rows[0]["class_3"]) == (CLASSES[1], "0.25", "")
    assert rows[1]["top1"] == rows[1]["probability"] == rows[1]["label"] == ""
    assert [(r["start_us"], r["end_us"]) for r in rows[3:]] == [("0", "2000000"), ("2000000", "4000000")]
    assert {r["clips"] for r in rows} == {"4"} and len(rows) == 3 + len(PARTS)


def test_names_with_commas_quotes_and_lines_come_back() -> None:
    name = 'a, "b"\nc'
    (found,) = table(export_of(row(name, label=name)))
    assert found["uri"] == found["label"] == name


def test_no_videos_is_a_table_too() -> None:
    assert table(export_of()) == []
