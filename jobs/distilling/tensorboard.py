"""Training as TensorBoard shows it: an extra (`pip install "locum[tensorboard]"`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.errors import SettingsError

if TYPE_CHECKING:
    from pipeline.distill.loop import OnTrainProgress, TrainProgress

_EVERY = 10


@contextmanager
def tensorboard_log(folder: str) -> Iterator[OnTrainProgress]:
    """A callback that writes each tenth step's loss, and each epoch's measures, under ``folder``.

    Raises
    ------
    SettingsError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise SettingsError(f'--tensorboard needs the extra: pip install "locum[tensorboard]" ({e})') from e
    told = -1
    with SummaryWriter(folder) as writer:

        def show(p: TrainProgress) -> None:
            nonlocal told
            if p.step % _EVERY == 0 and p.loss == p.loss:
                writer.add_scalar("loss/step", p.loss, p.step)
            if p.last is not None and p.last.epoch > told:
                told = p.last.epoch
                for name in ("train_loss", "val_loss", "val_accuracy", "val_agreement"):
                    value = getattr(p.last, name)
                    if value == value:
                        writer.add_scalar(f"epoch/{name}", value, told + 1)

        yield show
