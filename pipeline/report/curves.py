"""How well confidences tell right from wrong, as pictures: risk against coverage, and reliability. Pure.

Shapes: N clips, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import ece, risk_coverage
from pipeline.report.style import FAINT, SERIES, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
NUM_BINS = 12


@dataclass(frozen=True)
class Said:
    """How sure one was of each clip, and whether it was right."""

    confidence_N: Floats
    right_N: NDArray[np.bool_]


@dataclass(frozen=True)
class Bins:
    """Clips by rising confidence, about equally many a bin: mean confidence, share that is right, how many."""

    confidence_B: Floats
    right_B: Floats
    count_B: NDArray[np.int64]


def bins(said: Said, number: int = NUM_BINS) -> Bins:
    """At most so many bins; clips of equal confidence stay in one."""
    order_N = np.argsort(said.confidence_N, kind="stable")
    sure_N, right_N = said.confidence_N[order_N].astype(np.float64), said.right_N[order_N].astype(np.float64)
    cut = np.linspace(0, len(sure_N), min(number, len(sure_N)) + 1).astype(np.int64)[1:-1]
    start_B = np.unique([0, *np.searchsorted(sure_N, sure_N[cut], side="left")])
    count_B = np.diff([*start_B, len(sure_N)])
    return Bins(
        np.add.reduceat(sure_N, start_B) / count_B, np.add.reduceat(right_N, start_B) / count_B, count_B
    )


def draw_risk_coverage(each: Mapping[str, Said]) -> Figure:
    """Share of wrong answers among the surest clips, over how many these are."""
    with drawing() as (figure, axes):
        for (name, said), colour in zip(each.items(), SERIES, strict=False):
            coverage_N, risk_N = risk_coverage(said.confidence_N, said.right_N)
            shown = np.unique(
                np.linspace(0, len(risk_N) - 1, 400).astype(np.int64)
            )  # a picture has no more columns
            axes.plot(coverage_N[shown], risk_N[shown], color=colour, linewidth=1.4, label=name)
        axes.set_xlabel("coverage: share of clips kept, the surest first")
        axes.set_ylabel("wrong among these")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_reliability(each: Mapping[str, Said]) -> Figure:
    """Share of right answers over how sure one was of them, and the expected calibration error in words."""
    with drawing(3.8) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for (name, said), colour in zip(each.items(), SERIES, strict=False):
            found = bins(said)
            size_B = 6 + 34 * found.count_B / found.count_B.max()
            axes.plot(found.confidence_B, found.right_B, color=colour, linewidth=1.2)
            error = ece(said.confidence_N, said.right_N)
            axes.scatter(
                found.confidence_B, found.right_B, s=size_B, color=colour, label=f"{name} (ECE {error:.3f})"
            )
        axes.set_xlabel("probability of the first class")
        axes.set_ylabel("right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.01)
        figure.legend(loc="outside lower center", ncols=1)
    return figure
