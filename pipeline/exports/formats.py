"""The formats by name, and what each asks of the videos that it shows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pipeline.exports.cvat import cvat_files
from pipeline.exports.document import Export, OutFile
from pipeline.exports.fiftyone import fiftyone_files
from pipeline.exports.label_studio import label_studio_files
from pipeline.exports.lines import jsonl_files
from pipeline.exports.table import csv_files
from pipeline.exports.webvtt import webvtt_files


@dataclass(frozen=True)
class Format:
    """``files`` renders an export. ``one_file``: as the file that was asked for, not in a folder. ``readable_only``:
    videos of which nothing could be read have no place in it. ``segments``: whether it shows them. ``plays`` says how a
    tool gets at the videos: by a URL in the browser, by a path on its own disk, or not at all."""

    files: Callable[[Export], Iterator[OutFile]]
    one_file: bool = False
    readable_only: bool = True
    segments: bool = True
    plays: Literal["url", "path"] | None = None


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "csv": Format(csv_files, one_file=True, readable_only=False, segments=False),
        "jsonl": Format(jsonl_files, one_file=True, readable_only=False),
        "label-studio": Format(label_studio_files, plays="url"),
        "cvat": Format(cvat_files),
        "fiftyone": Format(fiftyone_files, plays="path"),
        "webvtt": Format(webvtt_files),
    }
)
