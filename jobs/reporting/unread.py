"""What could not be read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jobs.reporting.gathered import Gathered
from pipeline.report.page import Block, Note, Table

_MOST_CAUSES = 20


def unread(found: Gathered) -> list[Block]:
    if not found.failed:
        if found.pending:
            return [Note(f"Nothing failed so far; {found.pending} clips are pending.")]
        return [Note("Every planned clip was read.", "good")]
    kinds = Counter((f.stage, f.error, f.permanent) for f in found.failed)
    rows_of: Counter[tuple[Any, ...]] = Counter()
    damaged_of: Counter[tuple[Any, ...]] = Counter()
    for f in found.failed:
        rows_of[(f.stage, f.error, f.permanent)] += f.missing_rows
        damaged_of[(f.stage, f.error, f.permanent)] += f.damaged_rows
    rows = [
        (
            stage,
            error,
            "for good" if permanent else "in passing",
            str(n),
            str(rows_of[key]),
            str(damaged_of[key]),
        )
        for key, n in kinds.most_common(_MOST_CAUSES)
        for stage, error, permanent in [key]
    ]
    caption = (
        f"{sum(kinds.values())} videos. `locum failures` lists them; `locum retry` plans those anew that failed in "
        "passing."
    )
    if len(kinds) > _MOST_CAUSES:
        caption = f"The {_MOST_CAUSES} most frequent of {len(kinds)} causes. {caption}"
    head = ("stage", "error", "", "videos", "clips missing", "clips damaged")
    return [Table("Quarantine", head, tuple(rows), frozenset({3, 4, 5}), caption=caption)]
