"""What a user sees: a progress bar on a terminal, plain lines in a log, numbers in words. Progress goes to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.runner import OnProgress, Progress

_LOG_SECONDS = 10.0


@contextmanager
def progress_display(verb: str, unit: str = "clips", *, quiet: bool = False) -> Iterator[OnProgress | None]:
    """A callback that shows progress: live on a terminal, else a line now and then."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(verb, unit) as show:
            yield show
    else:
        yield _Lines(verb, unit)


class _Lines:
    """A line at the start, every ten seconds, and at the end."""

    def __init__(self, verb: str, unit: str) -> None:
        self._verb, self._unit, self._next = verb, unit, 0.0

    def __call__(self, p: Progress) -> None:
        done = p.shards_done == p.shards_total
        if time.monotonic() < self._next and not done:
            return
        self._next = time.monotonic() + _LOG_SECONDS
        rate = p.clips_done / p.seconds if p.seconds else 0.0
        left = (p.clips_total - p.clips_done) / rate if rate else 0.0
        print(
            f"{self._verb}: {p.clips_done}/{p.clips_total} {self._unit}, {rate:.1f}/s, "
            f"{p.shards_done}/{p.shards_total} shards, {p.quarantined} quarantined, {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _bar(verb: str, unit: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[rate]}  {task.fields[quarantined]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=None, rate="", quarantined="")

        def show(p: Progress) -> None:
            rate = f"{p.clips_done / p.seconds:.1f}/s" if p.seconds else ""
            lost = f"[yellow]{p.quarantined} quarantined[/]" if p.quarantined else "0 quarantined"
            bar.update(task, completed=p.clips_done, total=p.clips_total, rate=rate, quarantined=lost)

        yield show


def duration(seconds: float) -> str:
    """Seconds as a person would say them: ``8 s``, ``3 min 20 s``, ``5 h 10 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """Bytes as a person would say them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("unreachable")


def emit(body: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result on stdout: one JSON object for scripts, or text for people."""
    print(json.dumps(body) if as_json else text)
