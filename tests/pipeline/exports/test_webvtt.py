"""Subtitles, by a reader that holds to the format."""

from __future__ import annotations

import html
import re

import pytest

from pipeline.exports.webvtt import webvtt_files
from pipeline.segments import Segment
from tests.pipeline.exports.rows import CLASSES, EXPORT, export_of, rendered, row

TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"


def cues(text: str) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and the text. Raises ValueError where it is not WebVTT."""
    head, *blocks = text.split("\n\n")
    if head.strip() != "WEBVTT":
        raise ValueError(head)
    found = []
    for block in filter(None, map(str.strip, blocks)):
        times, words = block.split("\n")
        match = re.fullmatch(f"{TIME} --> {TIME}", times)
        if match is None or "-->" in words or "<" in words:
            raise ValueError(block)
        h, m, s, ms, *end = map(int, match.groups())
        start, stop = (((a * 60 + b) * 60 + c) * 1000 + d for a, b, c, d in ((h, m, s, ms), end))
        found.append((start, stop, html.unescape(words)))
    return found


def test_segments_are_cues() -> None:
    files = rendered(list(webvtt_files(EXPORT)))
    assert list(files) == ["walk é.vtt", "none.vtt", "no rate.vtt", "film.vtt"]
    assert cues(files["walk é.vtt"]) == [
        (0, 1500, "walk 0.80"),
        (1500, 2000, f"{CLASSES[1]} 0.60"),
        (3000, 4000, f"{CLASSES[2]} 0.50"),
    ]
    assert cues(files["none.vtt"]) == []
    assert cues(files["film.vtt"]) == [(0, 2000, "walk 0.70"), (2000, 4000, f"{CLASSES[2]} 0.60")]


def test_long_and_short_times() -> None:
    segments = (Segment(0, 900, 0, 1.0, 1, 0, 0), Segment(900, 360_000_001_999, 1, 1.0, 1, 0, 0))
    (text,) = rendered(list(webvtt_files(export_of(row("/v.mp4", segments=segments))))).values()
    assert cues(text) == [(0, 360_000_001, f"{CLASSES[1]} 1.00")]
    assert "100:00:00.001" in text


def test_a_reader_of_others_reads_it() -> None:
    webvtt = pytest.importorskip("webvtt", reason="webvtt-py is not installed")
    for text in rendered(list(webvtt_files(EXPORT))).values():
        assert len(webvtt.from_string(text)) == len(cues(text))
