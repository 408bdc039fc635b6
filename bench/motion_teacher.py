"""A heavy teacher for the motion archive: an ensemble of the demo's network over symmetric views of each clip.

A mirrored, upturned or reversed clip of a motion shows a class that is known exactly, so what a network says of each
view can be turned back; and the sixteen frames of a clip are two clips of eight, half a step apart. Three networks
(`pipeline.demo.recipe`, seeds 0 to 2), eight views, two phases: 48 passes a clip. It is right more often than one pass,
and as slow against its student as large teachers are. The archive is synthetic, and so is what is shown on it.

    python -m bench.motion_teacher MEMBER.safetensors ... [-o FILE]       # puts members together

Shape suffixes: N clips, C colours, T frames, H height, W width, K classes.
"""

from __future__ import annotations

import argparse
import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.demo.motion import CLASSES, MIRROR_X, MIRROR_Y, REVERSE
from pipeline.demo.spec import demo_target_spec
from pipeline.models.small3d import build as build_small
from schemas.model import ModelRef
from schemas.targets import TargetSpec

WEIGHTS = Path(__file__).parent / "weights" / "motion_teacher.safetensors"
MEMBERS = 3
PHASES = 2
_AXES = ((MIRROR_X, 4), (MIRROR_Y, 3), (REVERSE, 2))
"""Class by class what a clip shows when it is flipped along an axis of (N, C, T, H, W)."""


class MotionTeacher(nn.Module):
    """``nets`` over all views; gives the logarithm of the mean of their probabilities, (N, K)."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self._views = []
        for flips in product((False, True), repeat=len(_AXES)):
            axes = [axis for flip, (_, axis) in zip(flips, _AXES, strict=True) if flip]
            turned = torch.tensor([CLASSES.index(_turned(name, flips)) for name in CLASSES])
            self._views.append((axes, turned))

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        words = [
            net(x.flip(axes) if axes else x).float().softmax(dim=1)[:, turned.to(x.device)]
            for x in (x_NCTHW[:, :, phase::PHASES] for phase in range(PHASES))
            for axes, turned in self._views
            for net in self.nets
        ]
        return torch.stack(words).mean(dim=0).clamp_min(1e-12).log()


def _turned(name: str, flips: tuple[bool, ...]) -> str:
    for flip, (swap, _) in zip(flips, _AXES, strict=True):
        name = swap.get(name, name) if flip else name
    return name


def build(members: int = MEMBERS, **kwargs: Any) -> nn.Module:
    """The network, with arguments of `pipeline.models.small3d.build`."""
    return MotionTeacher([build_small(**kwargs) for _ in range(members)])


def motion_target_spec(weights: Path = WEIGHTS) -> TargetSpec:
    """What it says of clips of 2 seconds, 16 frames of 64 x 64 each."""
    demo = demo_target_spec()
    teacher = ModelRef(
        factory="bench.motion_teacher:build",
        kwargs=demo.teacher.kwargs,
        weights=str(weights),
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        num_classes=len(CLASSES),
        classes=CLASSES,
        input=demo.teacher.input,
    )
    clip = demo.clip.model_copy(update={"num_frames": PHASES * demo.clip.num_frames})
    return demo.model_copy(update={"teacher": teacher, "clip": clip})


def main() -> None:
    import safetensors.torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("members", type=Path, nargs=MEMBERS)
    parser.add_argument("-o", "--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    together = {
        f"nets.{i}.{name}": value.half() if value.is_floating_point() else value
        for i, path in enumerate(args.members)
        for name, value in safetensors.torch.load_file(path).items()
    }
    args.out.parent.mkdir(exist_ok=True)
    safetensors.torch.save_file(together, args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
