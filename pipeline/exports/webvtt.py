"""``webvtt``: one ``.vtt`` a file, named after it, with its segments as cues. Any player shows them. Pure.

Times are cut to milliseconds. A file with several labelled parts has the segments of all of them.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import partial

from pipeline.exports.document import Export, FileRows, OutFile, by_file

_MS = 1000


def webvtt_files(export: Export) -> Iterator[OutFile]:
    """A file for each file of videos."""
    for file in by_file(export.rows):
        yield OutFile(f"{file.stem}.vtt", partial(_render, export, file))


def _render(export: Export, file: FileRows) -> bytes:
    segments = sorted(
        (s for row in file.rows for s in row.video.segments), key=lambda s: (s.start_us, s.end_us)
    )
    cues = [
        f"{_time(s.start_us)} --> {_time(s.end_us)}\n{_text(export.name_of(s))} {s.confidence:.2f}\n"
        for s in segments
        if s.start_us // _MS < s.end_us // _MS
    ]
    return "\n".join(["WEBVTT\n", *cues]).encode()


def _time(time_us: int) -> str:
    ms = time_us // _MS
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _text(name: str) -> str:
    """A name on one line, with nothing in it that is markup; ``-->`` would end the cue."""
    return html.escape(" ".join(name.split()), quote=False)
