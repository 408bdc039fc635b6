"""A tiny archive and a tiny teacher, for tests that run the main job."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from schemas.clip import ClipSpec
from schemas.model import ModelRef
from schemas.targets import TargetSpec, ViewSpec
from tests.video_files import constant, encode

LABELS = ("walk", "run", "sit")
FACTORY = f"{Path(__file__)}:build"


def make_video(path: Path, first_number: int, num_frames: int = 40) -> Path:
    """A video at 25 frames a second whose content depends on ``first_number``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(
        path, constant(num_frames), size=(64, 48), first_number=first_number, options={"preset": "ultrafast"}
    )
    return path


def make_archive(folder: Path, num_videos: int = 6) -> Path:
    """``num_videos`` videos of 1 to 3 seconds; the path of their manifest."""
    names = [f"videos/v{i:02d}.mp4" for i in range(num_videos)]
    for i, name in enumerate(names):
        make_video(folder / name, 100 * i, 25 + 10 * (i % 6))
    return write_manifest(folder, names)


def write_manifest(
    folder: Path, names: Sequence[str], labels: Sequence[str] | None = None, name: str = "m.csv"
) -> Path:
    path = folder / name
    with path.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["uri", "label", "split", "group"])
        for i, uri in enumerate(names):
            rows.writerow(
                [uri, labels[i] if labels else LABELS[i % 3], "train" if i % 2 else "test", f"g{i}"]
            )
    return path


class TinyNet(torch.nn.Module):
    """Logits from the mean colour of each frame; sleeps where the environment asks it to, so that it can be killed."""

    def __init__(self, num_classes: int, num_frames: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * num_frames, num_classes)

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        time.sleep(float(os.environ.get("TINY_TEACHER_SLEEP", "0")))
        return self.head(x_NCTHW.mean(dim=(3, 4)).flatten(1)) * 10


def build(num_classes: int = 5, num_frames: int = 4) -> torch.nn.Module:
    torch.manual_seed(1)
    return TinyNet(num_classes, num_frames)


def tiny_spec(**changes: object) -> TargetSpec:
    """Half-second clips of 4 frames, 32 x 24."""
    fields: dict[str, object] = {
        "teacher": ModelRef(factory=FACTORY),
        "clip": ClipSpec(num_frames=4, seconds=0.5),
        "view": ViewSpec(width=32, height=24),
    }
    return TargetSpec(**{**fields, **changes})  # type: ignore[arg-type]


TINY_FLAGS = [
    *("--teacher.factory", FACTORY),
    *("--clip.num-frames", "4", "--clip.seconds", "0.5"),
    *("--view.width", "32", "--view.height", "24"),
    "--local",
]
"""`tiny_spec` as flags of ``locum teach``, in one process."""
