"""Several processes that train one model together: each takes a part of every batch, and all take the same step.

One process alone is `ALONE`. Of several, rank 0 judges and writes; what it found is told to the others. Needs a
process group of torch.distributed, which somebody else has made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``world``, 0 to ``world`` - 1."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def together(self, model: nn.Module) -> nn.Module:
        """The same model, of which a backward pass leaves the mean gradient of all processes."""
        if self.world == 1:
            return model
        device = next(model.parameters()).device
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def told(self, value: T | None) -> T:
        """What rank 0 gives here, in every process. All must call it."""
        if self.world == 1:
            return cast(T, value)
        held: list[T | None] = [value if self.is_first else None]
        torch.distributed.broadcast_object_list(held, src=0)
        return cast(T, held[0])

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a number over all processes. All must call it."""
        if self.world > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
            value /= self.world
        return float(value)


ALONE = Ranks()
