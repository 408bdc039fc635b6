"""What a user sees: a progress bar on a terminal, plain lines in a log, numbers in words. Progress goes to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from jobs.words import duration
from pipeline import logs
from pipeline.runner import OnProgress, Progress

log = logging.getLogger("locum.progress")

_LOG_SECONDS = 10.0


class Display(Protocol):
    """Shows the phases of a job, one after another."""

    def phase(self, verb: str, unit: str) -> OnProgress:
        """A callback that shows how far the phase ``verb`` is, counted in ``unit``."""
        ...


@contextmanager
def progress_display(*, quiet: bool = False) -> Iterator[Display]:
    """Progress on stderr: live on a terminal, else a line now and then; nothing where ``quiet``."""
    if quiet:
        yield _Nothing()
    elif sys.stderr.isatty() and not logs.as_json():
        with _bar() as bar:
            yield bar
    else:
        yield _Log()


class _Nothing:
    def phase(self, verb: str, unit: str) -> OnProgress:
        return lambda _: None


class _Log:
    """A line at the start of a phase, every ten seconds, and at its end."""

    def phase(self, verb: str, unit: str) -> OnProgress:
        next_line = 0.0

        def show(p: Progress) -> None:
            nonlocal next_line
            if time.monotonic() < next_line and p.shards_done != p.shards_total:
                return
            next_line = time.monotonic() + _LOG_SECONDS
            rate = p.clips_done / p.seconds if p.seconds else 0.0
            left = duration((p.clips_total - p.clips_done) / rate) if rate else "?"
            text = (
                f"{verb}: {p.clips_done}/{p.clips_total} {unit}, {rate:.1f}/s, "
                f"{p.shards_done}/{p.shards_total} shards, {p.quarantined} quarantined, {left} left"
            )
            if logs.as_json():
                log.info("%s", text, extra=logs.about(phase=verb, **asdict(p)))
            else:
                print(text, file=sys.stderr, flush=True)

        return show


@contextmanager
def _bar() -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]}  {task.fields[quarantined]}"),
        TimeRemainingColumn(),
    )

    class Bars:
        def phase(self, verb: str, unit: str) -> OnProgress:
            task = None

            def show(p: Progress) -> None:
                nonlocal task
                if task is None:
                    task = bar.add_task(verb, total=p.clips_total, unit=unit, rate="", quarantined="")
                rate = f"{p.clips_done / p.seconds:.1f}/s" if p.seconds else ""
                lost = f"[yellow]{p.quarantined} quarantined[/]" if p.quarantined else "0 quarantined"
                bar.update(task, completed=p.clips_done, total=p.clips_total, rate=rate, quarantined=lost)

            return show

    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield Bars()


def emit(body: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result on stdout: one JSON object for scripts, or text for people."""
    print(json.dumps(body) if as_json else text)
