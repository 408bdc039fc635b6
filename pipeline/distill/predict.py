"""What a student says of rows of a snapshot, as Parquet: all metrics, intervals and simulations read that.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.distill.loader import Loader
from pipeline.distill.targets import TargetReader
from pipeline.uncertainty import softmax
from schemas.arrays import I64, Bools, Float32

Frames = NDArray[np.uint8]
_BATCH = 64


def prediction_schema(num_classes: int) -> pa.Schema:
    """One clip a row. ``fitted`` rows are those that the confidence heads were fitted on, ``known_to_teacher`` those of
    splits that the teacher was trained on. ``label`` is a class or null; ``teacher_top1`` and ``teacher_msp`` are of
    the teachers' mean at temperature 1; ``student_right`` and ``teacher_right`` are the confidences, 0 to 1; ``kl`` is
    of the teacher's probabilities from the student's, nats, null with top-k targets."""
    f32 = pa.float32()
    element = pa.field("element", f32, nullable=False)
    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("start_us", pa.int64(), nullable=False),
            pa.field("end_us", pa.int64(), nullable=False),
            pa.field("group", pa.uint64(), nullable=False),
            pa.field("fitted", pa.bool_(), nullable=False),
            pa.field("known_to_teacher", pa.bool_(), nullable=False),
            pa.field("label", pa.int32()),
            pa.field("teacher_top1", pa.int32(), nullable=False),
            pa.field("teacher_msp", f32, nullable=False),
            pa.field("logits", pa.list_(element, num_classes), nullable=False),
            pa.field("student_right", f32, nullable=False),
            pa.field("teacher_right", f32, nullable=False),
            pa.field("kl", f32),
        ]
    )


def run_over(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    loader: Loader,
    rows_R: Bools,
    device: torch.device,
) -> Iterator[tuple[I64, Float32, Float32]]:
    """Rows in order, in batches: their numbers, and both float32 arrays that ``function`` makes of their frames."""
    with torch.inference_mode():
        for rows_N, batch in loader.in_order(rows_R, _BATCH):
            first, second = function(torch.from_numpy(batch.frames_NTHWC).to(device))
            yield rows_N, first.float().cpu().numpy(), second.float().cpu().numpy()


def write_predictions(
    path: Path,
    student: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    loader: Loader,
    targets: TargetReader,
    rows_R: Bools,
    marks: Mapping[str, Bools],
    device: torch.device,
) -> int:
    """Write what the student says of rows to a Parquet file; ``marks`` are ``fitted`` and ``known_to_teacher`` of all
    rows (R,). Number of rows."""
    schema = prediction_schema(targets.snapshot.num_classes)
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows_N, logits_NK, confidences_N2 in run_over(student, loader, rows_R, device):
            marked = {name: mark_R[rows_N] for name, mark_R in marks.items()}
            writer.write_table(_table(rows_N, logits_NK, confidences_N2, targets, marked, schema))
            count += len(rows_N)
    return count


def _table(
    rows_N: I64,
    logits_NK: Float32,
    confidences_N2: Float32,
    targets: TargetReader,
    marked: Mapping[str, Bools],
    schema: pa.Schema,
) -> pa.Table:
    snapshot = targets.snapshot
    about = np.asarray(snapshot.rows_R[rows_N])
    at_one = TargetReader(snapshot, 1.0, targets.multi_label, targets.weights_M)
    if at_one.has_kept_only:
        classes_NJ, probs_NJ = at_one.kept(rows_N)
        best_N1 = probs_NJ.argmax(axis=1)[:, None]
        top1_N = np.take_along_axis(classes_NJ, best_N1, axis=1)[:, 0]
        msp_N = np.take_along_axis(probs_NJ, best_N1, axis=1)[:, 0]
        kl = pa.nulls(len(rows_N), pa.float32())
    else:
        probs_NK = at_one.dense(rows_N)
        top1_N, msp_N = probs_NK.argmax(axis=1), probs_NK.max(axis=1)
        kl = pa.nulls(len(rows_N), pa.float32()) if targets.multi_label else _kl(probs_NK, logits_NK)
    label = about["label"]
    columns: dict[str, Any] = {
        "video_id": snapshot.video_ids(rows_N),
        "start_us": about["start_us"],
        "end_us": about["end_us"],
        "group": about["group"],
        **marked,
        "label": pa.array(label, pa.int32(), mask=label < 0),
        "teacher_top1": top1_N.astype(np.int32),
        "teacher_msp": msp_N.astype(np.float32),
        "logits": pa.FixedSizeListArray.from_arrays(
            pa.array(logits_NK.ravel()), type=schema.field("logits").type
        ),
        "student_right": confidences_N2[:, 0],
        "teacher_right": confidences_N2[:, 1],
        "kl": kl,
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _kl(probs_NK: Float32, logits_NK: Float32) -> pa.Array:
    p, q = probs_NK.astype(np.float64), softmax(logits_NK).astype(np.float64)
    tiny = np.finfo(np.float32).tiny
    each = np.where(p > 0, p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny))), 0.0)
    return pa.array(each.sum(axis=1).astype(np.float32))
