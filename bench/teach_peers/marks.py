"""Marks: what a job notes while it runs, as lines ``seconds clips kind`` that all its processes append to one file.

Seconds are of the machine's monotonic clock, which all processes share. A line is one short write to a file opened for
appending, so lines of several processes do not mix.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

LOG = "LOCUM_BENCH_LOG"
BATCH, BUILD, DECODE, BEGIN, DONE = "batch", "build", "decode", "begin", "done"


@dataclass(frozen=True, order=True)
class Mark:
    """``clips`` is 0 but for batches."""

    seconds: float
    clips: int
    kind: str


def note(kind: str, clips: int = 0) -> None:
    """Append a mark to the file that the environment names; nothing where it names none."""
    path = os.environ.get(LOG)
    if path is None:
        return
    line = f"{time.monotonic():.6f} {clips} {kind}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def read_marks(path: Path) -> list[Mark]:
    """All marks, sorted by time; none where there is no file."""
    if not path.exists():
        return []
    marks = []
    for line in path.read_text().splitlines():
        seconds, clips, kind = line.split()
        marks.append(Mark(float(seconds), int(clips), kind))
    return sorted(marks)
