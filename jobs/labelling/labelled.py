"""Labelled videos from a label store: what both models said, what plans and footers tell of the files, and segments.

Clips are scanned shard by shard. What is kept is a few numbers a video, and segments of those videos alone for which
they are asked. A store that others write to meanwhile is read as it is at each step.

Shapes: M clips that both were asked about, V videos, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.labelling.video_labels import answers_in, video_labels
from pipeline.columns import matrix
from pipeline.labelled import LabelledVideo, Scored, class_name, class_names
from pipeline.segments import ClipWord, Segment, segments_of
from pipeline.select.aggregate import AGGREGATIONS, Answers
from pipeline.select.decision import Decision
from pipeline.select.passages import steady, with_videos
from pipeline.select.policies import passages_in
from pipeline.store.read import failures, scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.labels import TEACHER, LabelSpec
from schemas.shard import Failure

Floats = NDArray[np.float64]

_BATCH_ROWS = 4096
_BOTH = ["video_id", "student_logits", "teacher_logits"]
_WORDS = ["video_id", "start_us", "end_us", "answered_by", "top1", "confidence", "damaged"]
_FILES = ["video_id", "uris", "start_us", "end_us", "duration_us", "width", "height", "fps", "label"]


def labelled_videos(store: ShardStore, said: pa.Table | None = None) -> list[LabelledVideo]:
    """Every video that has rows or failed, without its segments, in no order; ``said`` are the labels of videos
    (`video_labels`), where they are known already."""
    spec = LabelSpec(**store.document.spec)
    said = video_labels(store) if said is None else said
    failed: dict[str, list[Failure]] = {}
    for _, failure in failures(store):
        failed.setdefault(failure.video_id, []).append(failure)
    ids = {*said["video_id"].to_pylist(), *failed}
    files = _files(store, ids)
    both = _words_of_both(store, spec)

    def video(video_id: str, row: Mapping[str, Any] | None) -> LabelledVideo:
        return _video(
            spec,
            video_id,
            row,
            files.pop(video_id, {}),
            failed.pop(video_id, []),
            both.pop(video_id, None),
        )

    batches = said.to_batches(max_chunksize=_BATCH_ROWS)
    videos = [video(row["video_id"], row) for batch in batches for row in batch.to_pylist()]
    return videos + [video(video_id, None) for video_id in list(failed)]


def with_segments(store: ShardStore, videos: Sequence[LabelledVideo]) -> list[LabelledVideo]:
    """The same videos, in the same order, with their segments."""
    spec = LabelSpec(**store.document.spec)
    wanted = pa.array(sorted({video.video_id for video in videos}), pa.string())
    found: dict[str, tuple[Segment, ...]] = {}
    for table in scan(store, _WORDS if spec.policy.passage is None else None):
        mine = table.filter(pc.is_in(table["video_id"], value_set=wanted))
        if spec.policy.passage is not None:
            mine = _by_passages(spec, mine)
        for video_id, rows in groupby(mine.to_pylist(), key=lambda row: row["video_id"]):
            found[video_id] = segments_of(_clip_word(row) for row in rows)
    return [replace(video, segments=found.get(video.video_id, ())) for video in videos]


def passage_words(spec: LabelSpec, rows: pa.Table) -> tuple[pa.Table, Floats]:
    """Rows of whole videos, less those of clips that nobody was asked about, and the probabilities that the passage of
    each came to, as a video's label would; (N, K). A passage in which one thing follows another is taken by its parts
    (`pipeline.select.passages.steady`)."""
    answers = answers_in(spec, rows)
    heard_N, decision = answers.heard_N, answers.decision
    if not heard_N.any():
        return rows.slice(0, 0), np.zeros((0, answers.student_NK.shape[1]))
    passages = passages_in(spec.policy, answers.scores.only(heard_N))
    student_NK, teacher_NK = answers.student_NK[heard_N], answers.teacher_NK[heard_N]
    student_N, teacher_N = decision.student_N[heard_N], decision.teacher_N[heard_N]
    if spec.aggregation == "teacher-only":  # where it was asked the student does not count
        asked_P = np.bincount(passages.video_N, teacher_N, passages.num_videos) > 0
        student_N = student_N & ~asked_P[passages.video_N]
    word_NK = np.where(teacher_N[:, None], teacher_NK, np.where(student_N[:, None], student_NK, np.nan))
    parts = with_videos(passages, steady(passages, word_NK.astype(np.float64)))
    said = Answers(parts, Decision(student_N, teacher_N), student_NK, teacher_NK)
    word_NK = AGGREGATIONS[spec.aggregation](said)[parts.video_N]
    return rows.filter(pa.array(heard_N)), word_NK


def _by_passages(spec: LabelSpec, rows: pa.Table) -> pa.Table:
    """The same, with the first class of its passage for each clip's, and that one's probability."""
    if not rows.num_rows:
        return rows
    rows, word_NK = passage_words(spec, rows)
    for name, values in (("top1", word_NK.argmax(axis=1)), ("confidence", word_NK.max(axis=1))):
        field = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), field, pa.array(values).cast(field.type))
    return rows


def class_names_of(store: ShardStore) -> tuple[str, ...]:
    """Names of all classes of a label store."""
    spec = LabelSpec(**store.document.spec)
    return class_names(spec.classes, spec.teacher.teacher.num_classes or 0)


def _video(
    spec: LabelSpec,
    video_id: str,
    said: Mapping[str, Any] | None,
    about: Mapping[str, Any],
    failed: Sequence[Failure],
    both: tuple[int, int] | None,
) -> LabelledVideo:
    label = about.get("label")
    meant = None if label is None else spec.label_map.get(label, label)
    video = LabelledVideo(
        uri=about.get("uri") or (failed[0].uri if failed else ""),
        video_id=video_id,
        start_us=about.get("start_us"),
        end_us=about.get("end_us"),
        duration_us=about.get("duration_us") or 0,
        width=about.get("width") or 0,
        height=about.get("height") or 0,
        fps=about.get("fps") or 0.0,
        label=label,
        label_class=meant if meant in spec.classes else None,
        student=None if both is None else class_name(spec.classes, both[0]),
        teacher=None if both is None else class_name(spec.classes, both[1]),
        missing=sum(f.missing_rows for f in failed),
        failure=f"{failed[-1].stage}: {failed[-1].error}" if failed else None,
    )
    if said is None:
        return video
    ranked = zip(said["topk"] or (), said["topk_probability"] or (), strict=True)
    audit = said["audit_top1"]
    return replace(
        video,
        uri=said["uri"] or video.uri,
        ranked=tuple(Scored(class_name(spec.classes, k), p) for k, p in ranked),
        audit=None if audit is None else class_name(spec.classes, audit),
        clips=said["clips"],
        deferred=said["deferred"],
        damaged=said["damaged"],
    )


def _files(store: ShardStore, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the plans tell of some videos and their files; of several generations that tell of one, the last."""
    found: dict[str, dict[str, Any]] = {}
    for plan in store.plans():
        for batch in plan.batches(_FILES):
            for row in batch.to_pylist():
                if row["video_id"] in ids and row["uris"]:
                    row["uri"] = row.pop("uris")[0]
                    found[row["video_id"]] = row
    return found


def _words_of_both(store: ShardStore, spec: LabelSpec) -> dict[str, tuple[int, int]]:
    """What student and teacher say of a video, each by its mean probability over the clips that both were asked about;
    only of videos with such clips. The student is at its temperature, the teacher as the dense one is."""
    found: dict[str, tuple[int, int]] = {}
    for table in scan(store, _BOTH):
        asked = pc.and_(pc.is_valid(table["student_logits"]), pc.is_valid(table["teacher_logits"]))
        mine = table.filter(asked).combine_chunks()
        if not mine.num_rows:
            continue
        ids, video_M = np.unique(np.array(mine["video_id"].to_pylist()), return_inverse=True)
        tempered = (matrix(mine["student_logits"]) / spec.student_temperature).astype(np.float32)
        firsts = [_first_of_mean(p, video_M, len(ids)) for p in (tempered, matrix(mine["teacher_logits"]))]
        found.update(zip(ids.tolist(), zip(*firsts, strict=True), strict=True))
    return found


def _first_of_mean(logits_MK: np.ndarray, video_M: np.ndarray, num_videos: int) -> list[int]:
    total_VK = np.zeros((num_videos, logits_MK.shape[1]))
    np.add.at(total_VK, video_M, softmax(logits_MK))
    firsts: list[int] = total_VK.argmax(axis=1).tolist()
    return firsts


def _clip_word(row: Mapping[str, Any]) -> ClipWord:
    return ClipWord(
        start_us=row["start_us"],
        end_us=row["end_us"],
        top1=row["top1"],
        confidence=row["confidence"] if row["confidence"] is not None else 0.0,
        by_teacher=row["answered_by"] == TEACHER,
        damaged=row["damaged"],
    )
