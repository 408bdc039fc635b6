"""A pretrained fight detector that nobody here wrote: RGB gated by optical flow, from a Keras file, as a Locum teacher.

    pip install h5py opencv-python-headless

    locum teach … \
        --teacher.factory examples/flow_gated.py:build \
        --teacher.kwargs '{"path": "rwf2000-flow-gated.keras.h5"}' --teacher.classes fight --teacher.classes noFight \
        --teacher.input.scale 1 --clip.num-frames 64 --clip.seconds 2 --view.width 224 --view.height 224

The network of Cheng, Cai and Li, "RWF-2000" (arXiv 1911.05913), 272,690 parameters; the file with weights is the
authors' (github.com/mchengny/RWF2000-Video-Database-for-Violence-Detection), for research. It wants 64 frames of
224 x 224 and computes Farneback flow between them, on the CPU: some seconds a clip. It is here as a real foreign
teacher, and as one of another modality than its students.

Shape suffixes: N clips, C channels, T frames, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

_FARNEBACK = (0.5, 3, 15, 3, 5, 1.2)


def build(path: str) -> FlowGated:
    """The network with the weights of the Keras file ``path``.

    Raises
    ------
    ImportError
        If h5py or OpenCV is missing.
    ValueError
        If the file holds another network.
    """
    import cv2  # noqa: F401 - found missing now, and not at the first clip
    import h5py

    model = FlowGated()
    with h5py.File(path, "r") as file:
        layers = {
            layer["config"]["name"] for layer in json.loads(file.attrs["model_config"])["config"]["layers"]
        }
        if not {"lambda_2", "multiply_1", "conv3d_22", "dense_3"} <= layers:
            raise ValueError(
                f"{path} is not the flow-gated network: it has the layers {sorted(layers)[:8]} …"
            )
        weights = file["model_weights"]
        with torch.no_grad():
            for name, layer in model.keras_layers():
                kernel, bias = (np.asarray(weights[name][name][f"{part}:0"]) for part in ("kernel", "bias"))
                order = (4, 3, 0, 1, 2) if kernel.ndim == 5 else (1, 0)
                layer.weight.copy_(torch.from_numpy(kernel.transpose(order).copy()))
                layer.bias.copy_(torch.from_numpy(bias))
    return model.eval()


class FlowGated(nn.Module):
    """Float clips (N, 3, 64, 224, 224) of colours 0 to 255 to logits (N, 2): fight, no fight."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.ModuleList(_pairs(3, (16, 16, 32, 32)))
        self.flow = nn.ModuleList(_pairs(2, (16, 16, 32, 32)))
        self.merged = nn.ModuleList(_pairs(32, (64, 64, 128)))
        self.dense = nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 32), nn.Linear(32, 2)])

    def keras_layers(self) -> Iterator[tuple[str, Any]]:
        """Each layer with weights, by its name in the Keras file."""
        convolutions = (*self.rgb, *self.flow, *self.merged)
        for number, layer in enumerate(convolutions, 1):
            yield f"conv3d_{number}", layer
        for number, layer in enumerate(self.dense, 1):
            yield f"dense_{number}", layer

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        pixels = x_NCTHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()
        flow = torch.from_numpy(np.stack([_flow(clip) for clip in pixels])).to(x_NCTHW)
        rgb, gate = _normalized(x_NCTHW), _normalized(flow.permute(0, 4, 1, 2, 3))
        for i in range(0, len(self.rgb), 2):
            last = i == len(self.rgb) - 2
            rgb = _pair(rgb, self.rgb[i], self.rgb[i + 1], torch.relu, (1, 2, 2))
            gate = _pair(
                gate, self.flow[i], self.flow[i + 1], torch.sigmoid if last else torch.relu, (1, 2, 2)
            )
        x = F.max_pool3d(rgb * gate, (8, 1, 1))
        for i, pool in zip(range(0, len(self.merged), 2), ((2, 2, 2), (2, 2, 2), (2, 3, 3)), strict=True):
            x = _pair(x, self.merged[i], self.merged[i + 1], torch.relu, pool)
        x = x.permute(0, 2, 3, 4, 1).flatten(1)
        for layer in self.dense[:-1]:
            x = torch.relu(layer(x))
        logits_NK: torch.Tensor = self.dense[-1](x)
        return logits_NK


def _pairs(channels: int, widths: tuple[int, ...]) -> Iterator[nn.Conv3d]:
    """For each width a convolution over space and one over time."""
    for width in widths:
        yield nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1))
        yield nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))
        channels = width


def _pair(
    x: torch.Tensor, space: Any, time: Any, activation: Any, pool: tuple[int, int, int]
) -> torch.Tensor:
    return F.max_pool3d(activation(time(activation(space(x)))), pool)


def _normalized(x: torch.Tensor) -> torch.Tensor:
    """Each clip less its mean, by its deviation, over all of it."""
    flat = x.flatten(1)
    shape = (-1, *([1] * (x.dim() - 1)))
    return (x - flat.mean(1).view(shape)) / flat.std(1, correction=0).view(shape).clamp_min(1e-6)


def _flow(clip_THWC: np.ndarray) -> np.ndarray:
    """Farneback flow to the next frame, less its mean, stretched to 0 to 255; zeros for the last one. (T, H, W, 2)"""
    import cv2

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip_THWC]
    out = np.zeros((*clip_THWC.shape[:3], 2), np.float32)
    for t in range(len(grey) - 1):
        flow: Any = cv2.calcOpticalFlowFarneback(
            grey[t], grey[t + 1], None, *_FARNEBACK, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
        )
        flow = flow - flow.mean((0, 1))
        for k in range(2):
            out[t, ..., k] = cv2.normalize(flow[..., k], None, 0, 255, cv2.NORM_MINMAX)
    return out
