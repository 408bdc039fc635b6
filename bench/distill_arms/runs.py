"""A training as `jobs.distill` sets it up, without its heads and files: what the arms of a comparison share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.distill.loader import Augmentation, Loader
from pipeline.distill.loop import OnTrainProgress, Training
from pipeline.distill.snapshot import Snapshot
from pipeline.models.student import build_student, for_classes
from schemas.arrays import I64, Bools
from schemas.frames import FrameSpec
from schemas.model import ModelRef
from schemas.student import TrainSpec


def training_of(
    snapshot: Snapshot,
    loader: Loader,
    kept: FrameSpec,
    spec: TrainSpec,
    train_R: Bools,
    work: Path,
    on_progress: OnTrainProgress | None = None,
    stretch_R: I64 | None = None,
) -> tuple[Training, nn.Module, ModelRef]:
    """A run on the CPU over these rows, judged by none, and its student."""
    student = for_classes(spec.student_ref(), snapshot.num_classes, snapshot.classes)
    model = build_student(student, (kept.clip.num_frames, kept.view.height, kept.view.width), seed=spec.seed)
    training = Training(
        model,
        student.input,
        spec,
        loader,
        train_R,
        np.zeros_like(train_R),
        work,
        device=torch.device("cpu"),
        augment=Augmentation(spec.shift),
        on_progress=on_progress,
        stretch_R=stretch_R,
    )
    return training, model, student
