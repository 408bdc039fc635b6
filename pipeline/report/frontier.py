"""Accuracy against cost, as a picture: a line for each policy, and marks for what was run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.report.style import FAINT, INK, PAPER, SERIES, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float]
"""Of the dense teacher's cost so much, and what it is worth."""


@dataclass(frozen=True)
class Line:
    """The members of a policy. ``role`` tells what a reader is to make of it: the policy that the page is about, a
    baseline, an upper bound that knows the answers, or another policy."""

    name: str
    points: tuple[Point, ...]
    role: str = "policy"


@dataclass(frozen=True)
class Mark:
    """One place on the plane, with the interval of its worth where that is known."""

    name: str
    at: Point
    low: float | None = None
    high: float | None = None
    filled: bool = True


def frontier(points: Iterable[Point]) -> list[Point]:
    """Points by rising cost, without those that are worth no more than a cheaper one."""
    found: list[Point] = []
    for cost, worth in sorted(points, key=lambda p: (p[0], -p[1])):
        if not found or worth > found[-1][1]:
            found.append((cost, worth))
    return found


def draw_frontier(
    lines: Sequence[Line], dense: float, marks: Sequence[Mark] = (), worth: str = "accuracy of videos"
) -> Figure:
    """The frontier of each line, the dense teacher's worth as a level, and marks on top."""
    with drawing(4.2) as (figure, axes):
        axes.axhline(dense, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            [1.0], [dense], marker="D", color=INK, markersize=6, linestyle="none", label="dense teacher"
        )
        colours = iter(SERIES * (len(lines) // len(SERIES) + 1))
        for line in lines:
            x, y = zip(*frontier(line.points), strict=True)
            colour = FAINT if line.role in ("baseline", "oracle") else next(colours)
            axes.plot(
                x,
                y,
                color=colour,
                linestyle={"oracle": ":", "baseline": "--"}.get(line.role, "-"),
                linewidth=2.4 if line.role == "own" else 1.1,
                marker="s" if len(x) == 1 else ".",
                markersize=6 if len(x) == 1 else 3,
                label=line.name,
            )
        for mark in marks:
            (x0, y0) = mark.at
            if mark.low is not None and mark.high is not None:
                axes.plot([x0, x0], [mark.low, mark.high], color=INK, linewidth=1.2)
            axes.plot(
                [x0],
                [y0],
                marker="*",
                markersize=13,
                linestyle="none",
                color=INK if mark.filled else PAPER,
                markeredgecolor=INK,
                label=mark.name,
                zorder=5,
            )
        axes.set_xlim(0, max([1.05, *(m.at[0] * 1.05 for m in marks)]))
        axes.set_xlabel("cost, as a share of the dense teacher's (decoding, student and teacher)")
        axes.set_ylabel(worth)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
