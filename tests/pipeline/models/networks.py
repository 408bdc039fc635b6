"""Small networks with answers in closed form; named by file path, as a user's own would be."""

from __future__ import annotations

import random
import weakref

import torch
from torch import nn


class Marginals(nn.Module):
    """Means over all axes but one, for each axis after the batch in turn: shows where every axis went."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes = range(1, x.dim())
        return torch.cat([x.mean([a for a in axes if a != keep]) for keep in axes], 1)


class MeansToLogits(nn.Module):
    """Means of the colours, dropout, batch norm on request, and a linear layer."""

    def __init__(self, num_classes: int, p: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        self.drop = nn.Dropout(p)
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.norm(x.mean((2, 3, 4)))))


class Narrow(MeansToLogits):
    """Runs out of memory above ``limit`` inputs; remembers the batch sizes it was asked for.

    ``still_held`` counts the inputs of earlier calls that nobody had let go of when the next one came.
    """

    def __init__(self, limit: int, message: str = "") -> None:
        super().__init__(2)
        self.limit, self.message = limit, message
        self.asked: list[int] = []
        self.inputs: list[weakref.ref[torch.Tensor]] = []
        self.still_held = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(x))
        self.still_held += sum(r() is not None for r in self.inputs)
        self.inputs = [weakref.ref(x)]
        if len(x) > self.limit:
            raise RuntimeError(self.message) if self.message else torch.OutOfMemoryError()
        return super().forward(x)


class Overflow(nn.Module):
    """Not finite for clips brighter than white paper in a shop window: a mean above 0.9."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3, 4))
        return torch.stack([mean, torch.where(mean > 0.9, torch.inf, mean)], 1)


class Attention(nn.Module):
    """A transformer layer: its fused path in evaluation leaves dropout out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(3, 1, 8, dropout=0.5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mean((3, 4)).transpose(1, 2)).mean(1)


class Returns(nn.Module):
    """Gives back what it was told to, whatever comes."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> object:
        return {
            "tuple": (x,),
            "flat": x.mean((1, 2, 3, 4)),
            "one row": x.new_zeros(1, 4),
            "integers": torch.zeros(len(x), 4, dtype=torch.int64),
            "nan": x.new_full((len(x), 4), float("nan")),
            "nothing": x.new_zeros(len(x), 0),
        }[self.what]


def not_a_module() -> int:
    return 7


def raises() -> nn.Module:
    raise KeyError("the author's own mistake")


def unrepeatable() -> nn.Module:
    model = MeansToLogits(2)
    nn.init.constant_(model.fc.weight, random.random())
    return model
