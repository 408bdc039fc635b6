"""Which lines of a simulation are worth a reader's eye: the policy in question, baselines, the best of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.simulate import Point, SimulateReport
from pipeline.report.frontier import Line, draw_frontier, frontier
from pipeline.select.policies import usual_aggregation
from schemas.policy import PolicySpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASELINES = {
    ("uniform-k", ""): "uniform-k",
    ("random-k", ""): "random-k",
    ("student-alone", ""): "student alone",
}
_CASCADES = {
    ("clip-threshold", "msp"): "max-probability cascade",
    ("clip-threshold", "entropy"): "entropy cascade",
}
_KINDS = ("video-part", "video-threshold", "clip-threshold", "coarse-to-fine")
_LOOKED_AT = np.linspace(0.05, 0.6, 12)
"""Shares of the dense cost at which policies of one kind are compared."""


@dataclass(frozen=True)
class Frontier:
    """``dense`` is the dense teacher's worth; ``worth`` says what is meant by it."""

    lines: tuple[Line, ...]
    dense: float
    worth: str
    is_labelled: bool


def frontier_of(report: SimulateReport, own: PolicySpec | None = None) -> Frontier:
    """The lines to draw; ``own`` is the policy that the picture is about."""
    labelled = report.about["labelled_videos"] > 0
    of: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for point in report.points:
        if point.aggregation == usual_aggregation(point.policy):
            of.setdefault((point.policy, point.score), []).append(_place(point, labelled))
    dense = of.pop(("dense", ""))[0][1]
    lines = []
    own_key = None if own is None or own.passage is not None else _key(own, of)
    if own_key is not None:
        lines.append(Line(f"{_named(own_key)} (this policy)", tuple(of[own_key]), "own"))
    for kind in _KINDS:
        keys = [k for k in of if k[0] == kind and k != own_key and k not in _CASCADES]
        if keys and (own_key is None or own_key[0] != kind):
            best = max(keys, key=lambda k: _worth(of[k]))
            lines.append(Line(_named(best), tuple(of[best])))
    lines += [Line(name, tuple(of[key])) for key, name in _CASCADES.items() if key in of and key != own_key]
    lines += [Line(name, tuple(of[key]), "baseline") for key, name in _BASELINES.items() if key in of]
    if ("gain-oracle", "") in of:
        lines.append(Line("gain oracle, knows who is right", tuple(of[("gain-oracle", "")]), "oracle"))
    return Frontier(
        tuple(lines),
        dense,
        "accuracy of videos" if labelled else "agreement with the dense teacher",
        labelled,
    )


def _place(point: Point, labelled: bool) -> tuple[float, float]:
    o = point.outcome
    return o.ratio, (o.accuracy if labelled else o.agreement).value


def _key(own: PolicySpec, of: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Among the policies, the one that ``own`` is a member of."""
    return next((k for k in of if k[0] == own.kind and k[1] in ("", own.score)), None)


def _named(key: tuple[str, str]) -> str:
    return " by ".join(word for word in key if word)


def _worth(points: Iterable[tuple[float, float]]) -> float:
    """Mean over costs of the best that can be had for so much; nothing where nothing can."""
    x, y = (np.array(v) for v in zip(*frontier(points), strict=True))
    return float(np.mean([y[x <= at][-1] if (x <= at).any() else 0.0 for at in _LOOKED_AT]))


def frontier_figure(report: SimulateReport) -> Figure:
    """The picture of a simulation alone."""
    found = frontier_of(report)
    return draw_frontier(found.lines, found.dense, worth=found.worth)
