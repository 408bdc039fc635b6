"""Where the teacher was called."""

from __future__ import annotations

import numpy as np

from jobs.reporting.figures import Figures
from jobs.reporting.gathered import Gathered, deferred_by_class
from pipeline.report.bars import MOST_CLASSES, deferred_counts, draw_by_class, draw_deferred
from pipeline.report.page import Block


def calls(found: Gathered, figures: Figures) -> list[Block]:
    by_class = deferred_by_class(found.table)
    blocks: list[Block] = []
    if by_class:
        share = {name: deferred / clips if clips else 0.0 for name, (clips, deferred) in by_class.items()}
        counts = {name: clips for name, (clips, _) in by_class.items()}
        figure = draw_by_class(share, counts, found.ledger.share)
        caption = f"By what their video was labelled; in brackets the clips. {len(share)} classes were given"
        caption += f", of which these {MOST_CLASSES} went there most." if len(share) > MOST_CLASSES else "."
        blocks.append(figures.picture("by-class", "Clips that went to the teacher", figure, caption))
    names, numbers = deferred_counts(found.table["deferred"].to_numpy())
    figure = draw_deferred(names, numbers)
    clips_V = found.table["clips"].to_numpy()
    caption = (
        f"Videos have {clips_V.min()} to {clips_V.max()} clips, {np.median(clips_V):g} in the middle."
        if len(clips_V)
        else ""
    )
    blocks.append(figures.picture("deferred", "Clips of a video that went to the teacher", figure, caption))
    return blocks
