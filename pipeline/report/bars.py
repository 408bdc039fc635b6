"""Counts and shares as bars: what was spent on what, classes, clips of a video. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.report.style import BLUE, GOLD, GREEN, INK, ORANGE, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"decoding": BLUE, "student": GREEN, "teacher": ORANGE, "audit": GOLD}
"""What seconds are spent on, and the colour of each."""
MOST_CLASSES = 20
_MOST_DEFERRED = 12


def draw_spending(rows: Mapping[str, Mapping[str, float]], unit: str, words: Mapping[str, str]) -> Figure:
    """A bar for each of ``rows``, of the parts of `PARTS` it is made of; ``words`` stand at its end."""
    with drawing(0.85 + 0.42 * len(rows)) as (figure, axes):
        names = list(rows)
        y = np.arange(len(names))[::-1]
        left = np.zeros(len(names))
        longest = max(sum(parts.values()) for parts in rows.values()) or 1.0
        for part, colour in PARTS.items():
            width = np.array([rows[name].get(part, 0.0) for name in names])
            if width.any():
                axes.barh(y, width, left=left, color=colour, height=0.62, label=part)
            left += width
        for at, total, name in zip(y, left, names, strict=True):
            axes.text(total + 0.01 * longest, at, words[name], va="center", fontsize=8, color=INK)
        axes.set_yticks(y, names)
        axes.set_xlim(0, longest * 1.3)
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        if left.any():
            figure.legend(loc="outside lower center", ncols=len(PARTS))
    return figure


def draw_by_class(share: Mapping[str, float], counts: Mapping[str, int], overall: float) -> Figure:
    """Share of clips that went to the teacher, by what the video was labelled; the most at the top."""
    order = sorted(share, key=lambda name: (-share[name], name))[:MOST_CLASSES]
    with drawing(0.9 + 0.2 * max(3, len(order))) as (figure, axes):
        y = np.arange(len(order))[::-1]
        axes.barh(y, [share[name] for name in order], color=ORANGE, height=0.66)
        axes.axvline(overall, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks(y, [f"{_short(name)} ({counts[name]})" for name in order])
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.set_xlabel("clips that went to the teacher; dashed: of all classes")
        axes.grid(axis="y", visible=False)
    return figure


def deferred_counts(deferred_V: NDArray[np.integer]) -> tuple[list[str], list[int]]:
    """How many videos have 0, 1, 2, ... clips that went to the teacher; from 12 on they are taken together."""
    capped_V = np.minimum(np.asarray(deferred_V, np.int64), _MOST_DEFERRED)
    count = np.bincount(capped_V, minlength=2)
    names = [str(n) if n < _MOST_DEFERRED else f"{n}+" for n in range(len(count))]
    return names, count.tolist()


def draw_deferred(names: Sequence[str], counts: Sequence[int]) -> Figure:
    """How many videos have so many clips that went to the teacher."""
    with drawing(2.9) as (figure, axes):
        x = np.arange(len(names))
        axes.bar(x, counts, color=BLUE, width=0.8)
        axes.set_xticks(x, names)
        axes.set_xlabel("clips of a video that went to the teacher")
        axes.set_ylabel("videos")
        axes.grid(axis="x", visible=False)
    return figure


def _short(name: str) -> str:
    """Its beginning and its end: names that begin alike stay apart."""
    return name if len(name) <= 28 else f"{name[:15]}…{name[-12:]}"
