"""A teacher that is slow, dies, raises or gives nonsense when told to."""

from __future__ import annotations

import ctypes
import time

import torch


class Faulty(torch.nn.Module):
    """Logits from the mean colour. ``x`` above a brightness makes it die or say NaN; ``raise_after`` counts calls."""

    def __init__(
        self, seconds: float, die_above: float, nan_above: float, raise_after: int, num_frames: int
    ) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * num_frames, 5)
        self.seconds, self.die_above, self.nan_above = seconds, die_above, nan_above
        self.calls_left = raise_after

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.calls_left -= 1
        if self.calls_left == 0:
            self.calls_left = 1
            raise OSError("on purpose")
        brightest = float(x_NCTHW.mean(dim=(1, 2, 3, 4)).max())
        if brightest > self.die_above:
            ctypes.string_at(0)
        logits_NK = self.head(x_NCTHW.mean(dim=(3, 4)).flatten(1)) * 10
        return logits_NK * (float("nan") if brightest > self.nan_above else 1.0)


def build(
    seconds: float = 0.0,
    die_above: float = 2.0,
    nan_above: float = 2.0,
    raise_after: int = -1,
    num_frames: int = 4,
) -> torch.nn.Module:
    torch.manual_seed(1)
    return Faulty(seconds, die_above, nan_above, raise_after, num_frames)
