"""Small stores to distil from, for tests: made of real files, whose labels are of five classes."""

from __future__ import annotations

import csv
from pathlib import Path

import safetensors.torch
import torch

from jobs.distill import DistilOptions, DistilReport
from jobs.frames import keep_frames
from jobs.teach import TeachOptions, teach
from schemas.frames import KeepSpec
from schemas.student import TrainSpec
from tests.tiny import make_video, tiny_spec

SPLITS = ("train", "train", "train", "val", "calibration", "test")
CLASSES = ("walk", "run", "sit", "jump", "lie")
TRAIN = TrainSpec(
    student="tiny",
    student_kwargs={"width": 4},
    epochs=3,
    final_epochs=1,
    batch_size=8,
    classes=CLASSES,
    label_weight=0.2,
    seed=5,
    shift=True,
)
OPTIONS = DistilOptions(device="cpu", num_threads=1)
KEEP = KeepSpec(num_frames=4, width=24, height=16)


def make_manifest(
    folder: Path, splits: tuple[str, ...] = SPLITS, num_videos: int = 18, label: str = ""
) -> Path:
    path = folder / "m.csv"
    with path.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["uri", "label", "split", "group"])
        for i in range(num_videos):
            name = f"videos/v{i:02d}.mp4"
            if not (folder / name).exists():
                make_video(folder / name, 100 * i, 40 + 10 * (i % 3))
            rows.writerow([name, label or CLASSES[i % 3], splits[i % len(splits)], f"g{i}"])
    return path


def make(folder: Path, **changes: object) -> str:
    """Teach and keep frames of the archive in ``folder``; the target store."""
    if not (folder / "archive" / "m.csv").exists():
        make_manifest(folder / "archive")
    options = TeachOptions(batch_size=4, shard_clips=12, num_threads=1)
    report = teach(str(folder / "archive" / "m.csv"), str(folder / "out"), tiny_spec(**changes), options)
    keep_frames(report.store.url, keep=KEEP)
    return report.store.url


def targets_in(folder: Path) -> str:
    (found,) = (folder / "out").glob("targets-*")
    return str(found)


def weights(report: DistilReport) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(str(Path(report.url) / "student.safetensors"))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def make_manifest_in(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "archive").mkdir(exist_ok=True)
    return make_manifest(tmp_path / "archive", **changes)  # type: ignore[arg-type]


def frames_in(folder: Path) -> str:
    (found,) = (folder / "out").glob("frames-*")
    return str(found)
