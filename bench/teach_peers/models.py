"""The two teachers of the benchmark, random weights from a fixed seed. Each notes a mark when a batch is done.

``light`` is `pipeline.models.small3d` (0.3 M parameters); ``heavy`` is a plain R3D-18 (Tran et al., arXiv 1711.11248;
33 M parameters).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bench.teach_peers.marks import BATCH, BUILD, note
from pipeline.models import small3d

quiet_builds = 0
"""Models still to be built in this process whose batches are not noted: Locum tries a teacher on synthetic clips
before it plans, and those are no work done."""


class Noted(nn.Module):
    """A model that notes each forward pass once it is over."""

    def __init__(self, model: nn.Module, quiet: bool) -> None:
        super().__init__()
        self.model, self.quiet = model, quiet

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        logits_NK: torch.Tensor = self.model(x_NCTHW)
        if not self.quiet:
            note(BATCH, len(x_NCTHW))
        return logits_NK


def light(num_classes: int = 400) -> Noted:
    return _build(small3d.build, num_classes)


def heavy(num_classes: int = 400) -> Noted:
    return _build(R3d18, num_classes)


def _build(model: Callable[[int], nn.Module], num_classes: int) -> Noted:
    global quiet_builds
    torch.manual_seed(7)
    quiet, quiet_builds = quiet_builds > 0, max(0, quiet_builds - 1)
    if not quiet:
        note(BUILD)
    return Noted(model(num_classes), quiet)


class R3d18(nn.Module):
    """Float clips (N, 3, T, H, W) to logits (N, K)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(inplace=True),
        ]
        previous = 64
        for width in (64, 128, 256, 512):
            layers += [_Block(previous, width, 1 if width == 64 else 2), _Block(width, width, 1)]
            previous = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(previous, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        logits_NK: torch.Tensor = self.head(self.layers(x_NCTHW).mean((2, 3, 4)))
        return logits_NK


class _Block(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x_NCTHW) + self.shortcut(x_NCTHW))
