"""What exported students say of all clips of another archive: one that nothing was trained, tuned or scored on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from pipeline.distill.loader import Loader
from pipeline.distill.predict import write_predictions
from pipeline.distill.snapshot import Snapshot
from pipeline.distill.targets import TargetReader
from pipeline.store.shard_store import ShardStore


def said_elsewhere(student: Path, snapshot: Snapshot, frames: ShardStore, folder: Path) -> Path:
    """Predictions of ``student`` as `jobs.distill` writes those of its test split, in a folder under ``folder``.

    Returns that folder. What is there already is not made again.

    Raises
    ------
    ValueError
        If the classes, or the frames, are not those that the student knows.
    """
    about = json.loads((student / "student.json").read_text())
    if about["classes"] != list(snapshot.classes):
        raise ValueError(f"{student} knows other classes than those of {frames.url}")
    if about["frames"]["spec"] != frames.document.spec:
        raise ValueError(f"{student} learnt from other frames than those of {frames.url}")
    place = folder / f"{student.name}-{snapshot.digest[:12]}"
    path = place / "predictions" / "test.parquet"
    if path.exists():
        return place
    reader = TargetReader(snapshot)
    nobody = np.zeros(len(snapshot.rows_R), np.bool_)
    marks = {"fitted": nobody, "known_to_teacher": nobody}
    part = path.with_suffix(".part")
    model = torch.export.load(student / "student.pt2").module()
    write_predictions(
        part, model, Loader(reader, frames), reader, snapshot.usable_R, marks, torch.device("cpu")
    )
    part.rename(path)
    return place
