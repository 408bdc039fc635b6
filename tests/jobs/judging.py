"""A target store and a student's folder with made-up words, for tests of what is done with both: no video, no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.distill.predict import prediction_schema
from pipeline.known import group_hashes
from pipeline.select.joined import matrix
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from tests.pipeline.store.stores import CLASSES, dealt, empty_store, finish, plan_row

SPLITS = ("val", "calibration", "calibration", "test")


def make_judged(
    folder: Path,
    num_videos: int = 240,
    clips: int = 4,
    *,
    noise: float = 1.5,
    labels: bool = True,
    strays: Sequence[int] = (),
    seed: int = 0,
) -> tuple[str, ShardStore]:
    """The URL of a student's folder, and its target store. Videos come two to a group; the heads of the student were
    fitted on every other group of the calibration split. Groups in ``strays`` have another video, without a split."""
    folder.mkdir(parents=True, exist_ok=True)
    store = empty_store(str(folder / "out"))
    rows = [
        plan_row(n, 1 + n % clips, split=SPLITS[n // 2 % len(SPLITS)], group=f"g{n // 2}")
        for n in range(num_videos)
    ]
    rows += [plan_row(num_videos + i, 2, split=None, group=f"g{g}") for i, g in enumerate(strays)]
    store.add_plan(dealt(rows, 40))
    finish(store)
    table = read(store, ["video_id", "start_us", "end_us", "logits", "split", "group", "file_id"])
    student = folder / "student"
    (student / "predictions").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    teacher_NK = matrix(table["logits"])
    label_N = _labels(table, teacher_NK, rng) if labels else np.full(table.num_rows, -1)
    student_NK = (teacher_NK + rng.normal(0, noise, teacher_NK.shape)).astype(np.float32)
    fitted_N = np.array([int(g[1:]) // 4 % 2 == 0 for g in table["group"].to_pylist()])
    split_N = np.array(table["split"].to_pylist())
    right_N = [
        (0.3 + 0.6 * (said.argmax(axis=1) == label_N) * rng.random(len(label_N))).astype(np.float32)
        for said in (student_NK, teacher_NK)
    ]
    schema = prediction_schema(CLASSES)
    flat = pa.array(student_NK.ravel())
    columns = {
        "video_id": table["video_id"],
        "start_us": table["start_us"],
        "end_us": table["end_us"],
        "group": pa.array(group_hashes(table)),
        "fitted": pa.array(fitted_N & (split_N == "calibration")),
        "known_to_teacher": pa.array(np.zeros(len(split_N), bool)),
        "label": pa.array(label_N, pa.int32(), mask=label_N < 0),
        "teacher_top1": pa.array(teacher_NK.argmax(axis=1), pa.int32()),
        "teacher_msp": pa.array(softmax(teacher_NK).max(axis=1)),
        "logits": pa.FixedSizeListArray.from_arrays(flat, type=schema.field("logits").type),
        "student_right": pa.array(right_N[0]),
        "teacher_right": pa.array(right_N[1]),
        "kl": pa.nulls(len(split_N), pa.float32()),
    }
    predictions = pa.table([columns[f.name] for f in schema], schema=schema)
    for split in sorted(set(SPLITS)):
        pq.write_table(
            predictions.filter(pa.array(split_N == split)), student / "predictions" / f"{split}.parquet"
        )
    about = {
        "fingerprint": "a" * 32,
        "train": {"multi_label": False},
        "targets": [{"url": store.url, "fingerprint": store.document.fingerprint}],
        "frames": {"fingerprint": "b" * 32},
        "classes": ["left", "right", "still"],
        "weights_sha256": "c" * 64,
        "clips": {split: int((split_N == split).sum()) for split in set(SPLITS)},
    }
    (student / "student.pt2").write_bytes(b"a program")
    (student / "student.json").write_text(json.dumps(about))
    return str(student), store


def _labels(table: pa.Table, teacher_NK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the dense teacher says of a video, or by chance something else."""
    ids, video_N = np.unique(np.array(table["video_id"].to_pylist()), return_inverse=True)
    total_VK = np.zeros((len(ids), CLASSES))
    np.add.at(total_VK, video_N, softmax(teacher_NK))
    wrong_V = rng.random(len(ids)) < 0.15
    return np.where(wrong_V, rng.integers(0, CLASSES, len(ids)), total_VK.argmax(axis=1))[video_N]
