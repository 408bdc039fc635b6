"""``jsonl``: one JSON object a line for each video, with its segments. For programs. Pure.

Times are microseconds since the file's first frame; null for whole files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.exports.document import Export, OutFile, Row


def jsonl_files(export: Export) -> Iterator[OutFile]:
    """One file."""
    yield OutFile("", lambda: b"".join(_line(export, row) for row in export.rows))


def _line(export: Export, row: Row) -> bytes:
    return (json.dumps(_object(export, row), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _object(export: Export, row: Row) -> dict[str, Any]:
    video, first = row.video, row.video.first
    return {
        "uri": video.uri,
        "video_id": video.video_id,
        "start_us": video.start_us,
        "end_us": video.end_us,
        "top1": first.name if first else None,
        "probability": round(first.probability, 6) if first else None,
        "next": [{"name": s.name, "probability": round(s.probability, 6)} for s in video.ranked[1:]],
        "review": row.review.kind,
        "reason": row.review.reason,
        "label": video.label,
        "student": video.student,
        "teacher": video.teacher,
        "audit": video.audit,
        "clips": video.clips,
        "deferred": video.deferred,
        "damaged": video.damaged,
        "missing": video.missing,
        "segments": [
            {
                "start_us": s.start_us,
                "end_us": s.end_us,
                "name": export.name_of(s),
                "confidence": round(s.confidence, 6),
                "clips": s.clips,
                "teacher_clips": s.teacher_clips,
                "damaged_clips": s.damaged_clips,
            }
            for s in video.segments
        ],
    }
