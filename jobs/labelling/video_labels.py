"""Labels of videos, from the rows of a label store: a scan, shard by shard.

Shapes: N clips, V videos, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.columns import as_parquet
from pipeline.select.aggregate import AGGREGATIONS, TEMPERED, Answers
from pipeline.select.aggregate import video_labels as first_classes
from pipeline.select.decision import Decision
from pipeline.select.scores import clip_scores
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.arrays import Float32
from schemas.labels import LabelSpec
from schemas.policy import CostSpec

FILE = "videos.parquet"
_TOP = 5
_F32 = pa.float32()

VIDEO_LABELS_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("label", pa.string()),  # of the manifest
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("file_id", pa.string()),
        pa.field("learnt", pa.bool_(), nullable=False),
        pa.field("top1", pa.int32()),
        pa.field("top1_name", pa.string()),
        pa.field("probability", _F32),
        pa.field("topk", pa.list_(pa.int32())),
        pa.field("topk_probability", pa.list_(_F32)),
        pa.field("clips", pa.int32(), nullable=False),
        pa.field("asked", pa.int32(), nullable=False),
        pa.field("looked", pa.int32(), nullable=False),
        pa.field("deferred", pa.int32(), nullable=False),
        pa.field("audited", pa.bool_(), nullable=False),
        pa.field("audit_top1", pa.int32()),
        pa.field("damaged", pa.int32(), nullable=False),
        pa.field("decode_s", _F32, nullable=False),
        pa.field("student_s", _F32, nullable=False),
        pa.field("teacher_s", _F32, nullable=False),
        pa.field("audit_s", _F32, nullable=False),
        pa.field("money", pa.float64()),
    ]
)
"""One video a row. Of its ``clips`` somebody was ``asked`` about so many. ``learnt`` where the student, its confidence
heads, the policy or the teacher were made from the video, so that being right there proves nothing. ``top1`` is null
where nobody was asked; ``audit_top1`` is the dense teacher's label of an audited video, null where the teacher could
not see all of it; ``teacher_s`` is without what the teacher took for audits, which is ``audit_s``. ``money`` is what
decoding, student and teacher cost by the prices that the policy was calibrated with, null where none was given."""

READ = ("uri", "label", "split", "group", "file_id")
"""Of the plan."""


@dataclass(frozen=True)
class VideoLabels:
    """What came of a run, over all videos."""

    url: str
    table: pa.Table
    spec: LabelSpec

    def to_json(self) -> dict[str, Any]:
        t = self.table
        mapped = self.spec.label_map
        classes = [mapped.get(label, label) for label in t["label"].to_pylist()]
        known = pa.array([c in self.spec.classes for c in classes], pa.bool_())
        t = t.set_column(t.column_names.index("label"), "label", pa.array(classes, pa.string()))
        labelled = t.filter(pc.and_(known, pc.is_valid(t["top1_name"])))
        judged = labelled.filter(pc.invert(labelled["learnt"]))
        clips = pc.sum(t["clips"]).as_py() or 0
        return {
            "videos": t.num_rows,
            "clips": clips,
            "asked": pc.sum(t["asked"]).as_py() or 0,
            "looked": pc.sum(t["looked"]).as_py() or 0,
            "deferred": pc.sum(t["deferred"]).as_py() or 0,
            "deferred_share": (pc.sum(t["deferred"]).as_py() or 0) / clips if clips else 0.0,
            "decode_s": round(pc.sum(t["decode_s"]).as_py() or 0.0, 3),
            "student_s": round(pc.sum(t["student_s"]).as_py() or 0.0, 3),
            "teacher_s": round(pc.sum(t["teacher_s"]).as_py() or 0.0, 3),
            "money": pc.sum(t["money"]).as_py(),
            "audit_s": round(pc.sum(t["audit_s"]).as_py() or 0.0, 3),
            "labelled_videos": judged.num_rows,
            "labelled_videos_learnt_from": labelled.num_rows - judged.num_rows,
            "accuracy": _share(pc.equal(judged["label"], judged["top1_name"])),
        }


def _share(flags: pa.ChunkedArray) -> float | None:
    return None if not len(flags) else float(pc.mean(flags.cast(_F32)).as_py())


def video_labels(
    store: ShardStore, costs: CostSpec | None = None, learnt: pa.Array | None = None
) -> pa.Table:
    """The label of each video that has rows, as `VIDEO_LABELS_SCHEMA`; at the prices of ``costs``. ``learnt`` are the
    ids of videos that models were made from (`jobs.selecting.judged.learnt_from`)."""
    spec = LabelSpec(**store.document.spec)
    columns = [*spec.table_schema().names, *READ]
    parts = [of_shard(spec, table) for table in scan(store, columns) if table.num_rows]
    if not parts:
        return VIDEO_LABELS_SCHEMA.empty_table()
    return finished(pa.concat_tables(parts), costs, learnt)


def finished(table: pa.Table, costs: CostSpec | None, learnt: pa.Array | None) -> pa.Table:
    """Labels of videos with what does not follow from their clips."""
    if learnt is not None:
        at = table.column_names.index("learnt")
        table = table.set_column(at, table.schema.field("learnt"), pc.is_in(table["video_id"], learnt))
    return _priced(table, costs)


def _priced(table: pa.Table, costs: CostSpec | None) -> pa.Table:
    """With what the seconds of each video cost."""
    if costs is None or not (costs.decode_price or costs.student_price or costs.teacher_price):
        return table
    seconds = (table[f"{name}_s"].to_numpy().astype(np.float64) for name in ("decode", "student", "teacher"))
    prices = (costs.decode_price, costs.student_price, costs.teacher_price)
    money_V = sum(s * price / 3600 for s, price in zip(seconds, prices, strict=True))
    return table.set_column(table.column_names.index("money"), table.schema.field("money"), pa.array(money_V))


def write_video_labels(store: ShardStore, table: pa.Table) -> VideoLabels:
    """Write the labels of videos into the store's folder, over what was there."""
    store.files.put_over(FILE, as_parquet(table))
    return VideoLabels(f"{store.url}/{FILE}", table, LabelSpec(**store.document.spec))


def answers_in(spec: LabelSpec, table: pa.Table) -> Answers:
    """What was said of the clips of a shard, or of some of its videos: all of their rows, in the order of the store."""
    num_classes = spec.teacher.teacher.num_classes or 1
    student_NK, student_N = _logits(table["student_logits"], num_classes)
    teacher_NK, teacher_N = _logits(table["teacher_logits"], num_classes)
    deferred_N = table["deferred"].to_numpy()
    scores = clip_scores(
        table["video_id"].to_pylist(),
        table["start_us"].to_numpy(),
        table["end_us"].to_numpy(),
        (student_NK / spec.student_temperature).astype(np.float32),
        _floats(table["student_right"]),
        _floats(table["teacher_right"]),
    )
    inclusion = table["inclusion"]
    drawn = None if inclusion.null_count else inclusion.to_numpy().astype(np.float64)
    decision = Decision(student_N, deferred_N & teacher_N, drawn)
    temperature = spec.teacher_temperature if spec.aggregation in TEMPERED else 1.0
    heard = softmax((teacher_NK / temperature).astype(np.float32))
    return Answers(scores, decision, scores.probs_NK, heard)


def of_shard(spec: LabelSpec, table: pa.Table) -> pa.Table:
    """Labels of the videos of a shard: of rows with all columns of the store, and the plan's words on them."""
    answers = answers_in(spec, table)
    scores = answers.scores
    word_VK = AGGREGATIONS[spec.aggregation](answers)
    teacher_NK, _ = _logits(table["teacher_logits"], spec.teacher.teacher.num_classes or 1)
    everything = np.ones(table.num_rows, np.bool_)
    dense = Decision(np.zeros(table.num_rows, np.bool_), everything)
    dense_VK = AGGREGATIONS["replace-mean"](Answers(scores, dense, scores.probs_NK, softmax(teacher_NK)))
    student_N, deferred_N = answers.decision.student_N, table["deferred"].to_numpy()
    return _rows(spec, table, scores.video_N, scores.num_videos, word_VK, dense_VK, student_N, deferred_N)


def _rows(
    spec: LabelSpec,
    table: pa.Table,
    video_N: np.ndarray,
    num_videos: int,
    word_VK: np.ndarray,
    dense_VK: np.ndarray,
    student_N: np.ndarray,
    deferred_N: np.ndarray,
) -> pa.Table:
    first_V = np.searchsorted(video_N, np.arange(num_videos))
    said_V = ~np.isnan(word_VK).any(axis=1)
    word_VK = np.where(said_V[:, None], word_VK, -1.0)
    top1_V = first_classes(word_VK)
    order_VK = np.argsort(-word_VK, axis=1, kind="stable")[:, :_TOP]
    audited_V = table["audited"].to_numpy()[first_V]

    def total(values_N: np.ndarray) -> np.ndarray:
        return np.bincount(video_N, values_N, num_videos)

    def seconds(name: str, counts_N: np.ndarray | None = None) -> np.ndarray:
        ms_N = table[name].fill_null(0.0).to_numpy().astype(np.float64)
        return total(ms_N if counts_N is None else ms_N * counts_N) / 1e3

    about = table.select(["video_id", *READ]).take(pa.array(first_V))
    names = spec.classes
    columns: dict[str, Any] = {
        **{name: about[name].combine_chunks() for name in about.column_names},
        "learnt": np.zeros(num_videos, np.bool_),
        "top1": pa.array(top1_V.astype(np.int32), mask=~said_V),
        "top1_name": pa.array(
            [names[k] if ok and names else None for k, ok in zip(top1_V, said_V, strict=True)], pa.string()
        ),
        "probability": pa.array(word_VK.max(axis=1).astype(np.float32), mask=~said_V),
        "topk": pa.array(
            [o.tolist() if ok else None for o, ok in zip(order_VK, said_V, strict=True)], pa.list_(pa.int32())
        ),
        "topk_probability": pa.array(
            [w[o].tolist() if ok else None for w, o, ok in zip(word_VK, order_VK, said_V, strict=True)],
            pa.list_(_F32),
        ),
        "clips": np.bincount(video_N, minlength=num_videos).astype(np.int32),
        "asked": total(student_N | deferred_N).astype(np.int32),
        "looked": total(student_N).astype(np.int32),
        "deferred": total(deferred_N).astype(np.int32),
        "audited": audited_V,
        "audit_top1": pa.array(
            first_classes(np.nan_to_num(dense_VK, nan=-1.0)).astype(np.int32),
            mask=~audited_V | np.isnan(dense_VK).any(axis=1),
        ),
        "damaged": total(table["damaged"].to_numpy()).astype(np.int32),
        "decode_s": seconds("decode_ms").astype(np.float32),
        "student_s": seconds("student_ms").astype(np.float32),
        "teacher_s": seconds("teacher_ms", deferred_N).astype(np.float32),
        "audit_s": seconds("teacher_ms", ~deferred_N).astype(np.float32),
        "money": pa.nulls(num_videos, pa.float64()),
    }
    arrays = [
        c if isinstance(c := columns[f.name], pa.Array) else pa.array(c, f.type) for f in VIDEO_LABELS_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=VIDEO_LABELS_SCHEMA)


def _logits(column: pa.ChunkedArray, num_classes: int) -> tuple[Float32, np.ndarray]:
    """A nullable column of logits, nan where null, and where it is not; (N, K) and (N,)."""
    there_N = pc.is_valid(column).to_numpy()
    out_NK = np.full((len(column), num_classes), np.nan, np.float32)
    if there_N.any():
        some = column.filter(pc.is_valid(column)).combine_chunks()
        out_NK[there_N] = some.flatten().to_numpy(zero_copy_only=False).reshape(-1, num_classes)
    return out_NK, there_N


def _floats(column: pa.ChunkedArray) -> Float32:
    """nan where null; (N,)."""
    return np.asarray(column.fill_null(float("nan")).to_numpy(), np.float32)
