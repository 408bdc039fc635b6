"""``csv``: one video a row, for spreadsheets. Pure.

Times are microseconds since the file's first frame; they are empty for whole files. Segments do not fit into a table:
``jsonl`` has them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from pipeline.exports.document import Export, OutFile, Row

NEXT_CLASSES = 4
"""Beside the first."""


def csv_files(export: Export) -> Iterator[OutFile]:
    """One file."""
    yield OutFile("", lambda: _render(export))


def _render(export: Export) -> bytes:
    text = io.StringIO(newline="")
    columns = list(_cells(export.rows[0])) if export.rows else ["uri", "video_id"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in export.rows)
    return text.getvalue().encode()


def _cells(row: Row) -> dict[str, Any]:
    """The cells of a row, which are the same for all rows. None becomes an empty one."""
    video, first = row.video, row.video.first
    cells: dict[str, Any] = {
        "uri": video.uri,
        "video_id": video.video_id,
        "start_us": video.start_us,
        "end_us": video.end_us,
        "top1": first.name if first else None,
        "probability": _rounded(first.probability) if first else None,
        "review": row.review.kind,
        "reason": row.review.reason,
    }
    for place in range(1, NEXT_CLASSES + 1):
        there = video.ranked[place] if place < len(video.ranked) else None
        cells[f"class_{place + 1}"] = there.name if there else None
        cells[f"probability_{place + 1}"] = _rounded(there.probability) if there else None
    return cells | {
        "label": video.label,
        "student": video.student,
        "teacher": video.teacher,
        "audit": video.audit,
        "clips": video.clips,
        "deferred": video.deferred,
        "damaged": video.damaged,
        "missing": video.missing,
    }


def _rounded(probability: float) -> float:
    return round(probability, 6)
