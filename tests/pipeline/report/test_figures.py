"""Figures: what is drawn, not how it looks. The same figure gives the same bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.report.bars import deferred_counts, draw_by_class, draw_deferred, draw_spending
from pipeline.report.curves import Said, bins, draw_reliability, draw_risk_coverage
from pipeline.report.frontier import Line, Mark, draw_frontier, frontier
from pipeline.report.style import DARK, LIGHT, as_file, as_inline, kind_of
from schemas.errors import SettingsError

RNG = np.random.default_rng(0)
SAID = Said(RNG.random(300), RNG.random(300) < 0.7)
LINES = (
    Line("own <policy>", ((0.1, 0.8), (0.3, 0.9), (0.2, 0.7)), "own"),
    Line("student alone", ((0.1, 0.7),), "baseline"),
    Line("oracle", ((0.1, 0.8), (0.9, 0.99)), "oracle"),
)
FIGURES: dict[str, Callable[[], object]] = {
    "frontier": lambda: draw_frontier(
        LINES, 0.93, (Mark("run", (0.24, 0.92), 0.9, 0.94), Mark("p", (1.4, 0.8)))
    ),
    "risk": lambda: draw_risk_coverage({"a": SAID, "b": SAID}),
    "reliability": lambda: draw_reliability({"a": SAID}),
    "spending": lambda: draw_spending({"x": {"decoding": 1.0}, "y": {}}, "hours", {"x": "1 h", "y": "0 s"}),
    "by-class": lambda: draw_by_class({"a": 0.2, "b" * 60: 0.0}, {"a": 10, "b" * 60: 1}, 0.1),
    "deferred": lambda: draw_deferred(*deferred_counts(np.array([0, 0, 3, 40]))),
}


def test_a_frontier_has_nothing_that_is_dearer_and_no_better() -> None:
    points = [(0.5, 0.8), (0.1, 0.6), (0.2, 0.6), (0.1, 0.5), (0.4, 0.9)]
    assert frontier(points) == [(0.1, 0.6), (0.4, 0.9)]


def test_bins_hold_all_clips_and_ties_stay_together() -> None:
    said = Said(np.array([0.9, 0.2, 0.2, 0.2, 0.5, 0.6]), np.array([1, 0, 1, 0, 1, 1], bool))
    found = bins(said, 3)
    assert found.count_B.sum() == 6 and (np.diff(found.confidence_B) > 0).all()
    assert found.count_B.tolist() == [4, 2] and found.right_B[0] == pytest.approx(2 / 4)
    assert (found.right_B * found.count_B).sum() == pytest.approx(said.right_N.sum())
    one = bins(Said(np.array([0.5]), np.array([True])))
    assert one.count_B.tolist() == [1]


def test_many_deferred_clips_are_taken_together() -> None:
    names, counts = deferred_counts(np.array([0, 1, 1, 20, 35]))
    assert names[-1] == "12+" and counts[-1] == 2 and counts[1] == 2 and sum(counts) == 5
    assert deferred_counts(np.array([0, 0]))[1] == [2, 0]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_the_same_each_time_and_stand_in_a_page(name: str) -> None:
    first, second = FIGURES[name](), FIGURES[name]()
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        assert as_file(first, kind) == as_file(second, kind)  # type: ignore[arg-type]
        assert as_file(first, kind).startswith(begins)  # type: ignore[arg-type]
    text = as_inline(first, name, 'words "in" <brackets>')  # type: ignore[arg-type]
    svg = ET.fromstring(text)
    assert svg.attrib["aria-label"] == 'words "in" <brackets>' and "viewBox" in svg.attrib
    assert "var(--" in text and not any(colour in text for colour in LIGHT.values())
    ids = [e.attrib["id"] for e in svg.iter() if "id" in e.attrib]
    assert ids and all(i.startswith(f"{name}-") for i in ids)
    used = {v[1:] for e in svg.iter() for k, v in e.attrib.items() if k.endswith("href")}
    assert used <= set(ids)


def test_text_of_figures_is_text() -> None:
    text = as_inline(FIGURES["frontier"](), "f", "")  # type: ignore[arg-type]
    words = {e.text for e in ET.fromstring(text).iter() if e.text}
    assert {"own <policy>", "dense teacher", "run"} <= words


def test_dark_and_light_have_the_same_colours_to_fill() -> None:
    assert set(LIGHT) == set(DARK) and len(set(LIGHT.values())) == len(LIGHT)


def test_what_is_no_picture_is_refused() -> None:
    assert kind_of("/a/b.PNG") == "png"
    with pytest.raises(SettingsError, match=r"a \.svg or a \.png, not f\.pdf"):
        kind_of("f.pdf")
