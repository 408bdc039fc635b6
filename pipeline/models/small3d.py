"""A small (2+1)D residual network for short clips: quick on a CPU, made for demos, students and tests.

Each 3D convolution is split into one over space and one over time (Tran et al., arXiv 1711.11248). Space is
halved by the stem and by the first three stages, time by the last two; a global mean over space and time
follows, so any clip length and picture size works.

Batch norm is the only part whose training and evaluation differ besides dropout: in ``eval()`` it uses the
running statistics, so a clip's logits do not depend on the clips beside it (up to rounding). The last norm of
each residual branch starts at zero, so every block starts as its shortcut and statistics settle early.

Does not know: weights (`pipeline.models.weights`), normalisation of the input (`schemas.model.InputSpec`).

Shape suffixes: N clips, C channels, T frames, H height, W width, F features, K classes.
"""

from __future__ import annotations

import torch
from torch import nn

from schemas.errors import ModelError

STAGES = ((1, 1, 2), (2, 1, 2), (4, 2, 2), (6, 2, 1))
"""For each stage: channels as a multiple of the width, stride in time, stride in space."""


def build(
    num_classes: int,
    width: int = 16,
    dropout: float = 0.2,
    blocks: int = 1,
    in_channels: int = 3,
    motion_first: bool = False,
) -> Small3d:
    """A randomly initialised `Small3d`; seed torch first to make it repeat.

    Parameters
    ----------
    num_classes
        Number K of logits.
    width
        Channels of the first stage; cost and size grow with its square. 16 gives about 0.3 M parameters.
    dropout
        Probability, in [0, 1), of dropping a feature before the class head while training.
    blocks
        Residual blocks a stage.
    in_channels
        Channels of the input; 3 for RGB.
    motion_first
        Start as `start_from_differences` says.

    Raises
    ------
    ModelError
        If a number is outside its range.
    """
    for name, value in (("num_classes", num_classes), ("width", width), ("blocks", blocks)):
        if value < 1:
            raise ModelError(f"small3d: {name} must be at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ModelError(f"small3d: dropout must be in [0, 1), got {dropout}")
    model = Small3d(num_classes, width, dropout, blocks, in_channels)
    if motion_first:
        start_from_differences(model)
    return model


def start_from_differences(model: nn.Module) -> None:
    """Let the network see change before it has learnt anything, in place.

    Every kernel over time loses its mean, so that it answers 0 to what stands still, and no residual branch
    starts switched off. For classes that only motion tells
    apart: from the usual start the demo teacher's loss had not moved after 200 steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            with torch.no_grad():
                module.weight.sub_(module.weight.mean(2, keepdim=True)).mul_(1.3)
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)


class Small3d(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Float clips (N, C, T, H, W) to logits (N, K); ``features`` stops before the head, at (N, F)."""

    def __init__(self, num_classes: int, width: int, dropout: float, blocks: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, width, (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        previous = width
        for multiple, time, space in STAGES:
            for block in range(blocks):
                stride_TSS = (time, space, space) if block == 0 else (1, 1, 1)
                stages.append(_Block(previous, multiple * width, stride_TSS))
                previous = multiple * width
        self.stages = nn.Sequential(*stages)
        self.num_features = previous
        """F: channels after the last stage."""
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(previous, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, _Block):
                nn.init.zeros_(module.last_norm.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """(N, F) means over time and space of the last stage."""
        features_NF: torch.Tensor = self.stages(self.stem(x_NCTHW)).mean((2, 3, 4))
        return features_NF

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        logits_NK: torch.Tensor = self.head(self.dropout(self.features(x_NCTHW)))
        return logits_NK


class _Block(nn.Module):  # type: ignore[misc]
    """Two (2+1)D convolutions and a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride_TSS: tuple[int, int, int]) -> None:
        super().__init__()
        time, space, _ = stride_TSS
        self.last_norm = nn.BatchNorm3d(outputs)
        self.branch = nn.Sequential(
            nn.Conv3d(inputs, outputs, (1, 3, 3), (1, space, space), (0, 1, 1), bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(outputs, outputs, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(outputs, outputs, (1, 3, 3), 1, (0, 1, 1), bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(outputs, outputs, (3, 1, 1), 1, (1, 0, 0), bias=False),
            self.last_norm,
        )
        self.shortcut = nn.Sequential()
        if inputs != outputs or max(stride_TSS) > 1:
            self.shortcut.append(nn.Conv3d(inputs, outputs, 1, stride_TSS, bias=False))
            self.shortcut.append(nn.BatchNorm3d(outputs))

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        y_NCTHW: torch.Tensor = torch.relu(self.branch(x_NCTHW) + self.shortcut(x_NCTHW))
        return y_NCTHW
