"""What a user sees of a training run: a line an epoch, and on a terminal a bar. On stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.distill.loop import EpochRecord, OnTrainProgress, TrainProgress


@contextmanager
def training_display(*, quiet: bool = False) -> Iterator[OnTrainProgress | None]:
    """A callback for training; None where ``quiet``."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _Epochs(lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("train "),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps  loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=None, loss="")
        epochs = _Epochs(bar.console.print)

        def show(p: TrainProgress) -> None:
            epochs(p)
            bar.update(task, completed=p.step, total=p.steps, loss=f"{p.loss:.3f}")

        yield show


class _Epochs:
    """Prints each epoch's record once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._told = say, -1

    def __call__(self, p: TrainProgress) -> None:
        if p.last is not None and p.last.epoch > self._told:
            self._told = p.last.epoch
            self._say(epoch_line(p.last, p.epochs))


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """One epoch in words. What is not known (nothing held out, no labels) is left out."""
    parts = [f"epoch {record.epoch + 1}/{epochs}: loss {record.train_loss:.4f}"]
    for what, value, form in (
        ("held out", record.val_loss, ".4f"),
        ("accuracy", record.val_accuracy, ".3f"),
        ("agreement", record.val_agreement, ".3f"),
    ):
        if value == value:
            parts.append(f"{what} {value:{form}}")
    return ", ".join([*parts, f"{record.seconds:.1f} s"])
