"""Exports of labels: the names of formats and orders."""

from __future__ import annotations

from typing import Literal

FormatName = Literal["csv", "jsonl", "label-studio", "cvat", "fiftyone", "webvtt"]
OrderName = Literal["review", "uri"]
"""What should be looked at first, or plainly by URI."""
