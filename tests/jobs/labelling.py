"""A label store with made-up answers, for tests of what is done with one: no video, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.kinds import LABELS
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.labels_table import ClipAnswer, Row, label_table
from schemas.clip import ClipSpec, clip_spans
from schemas.frames import FrameSpec
from schemas.labels import LabelSpec, StudentRef
from schemas.policy import PolicySpec
from schemas.shard import Failure, Shard, ShardResult
from schemas.targets import TargetSpec, ViewSpec
from tests.pipeline.store.stores import TEACHER, dealt, plan_row, video_id

CLASSES = ("walk", "run & jump", 'sit "down"')
CLIP = ClipSpec(num_frames=2, seconds=1.0)


@dataclass(frozen=True)
class Clip:
    """What is said of a clip: numbers of classes, None where nobody was asked. ``sure`` is the logit's height."""

    student: int | None = 0
    teacher: int | None = None
    sure: float = 3.0
    damaged: bool = False
    audit: int | None = None


@dataclass(frozen=True)
class Made:
    """A video: its clips, or what befell it. ``plan`` changes its row in the plan."""

    clips: Sequence[Clip] = ()
    missing: int = 0
    plan: Mapping[str, Any] | None = None


def label_spec(classes: tuple[str, ...] = CLASSES, clip: ClipSpec = CLIP, **changes: Any) -> LabelSpec:
    teacher = TargetSpec(teacher=TEACHER, clip=clip)
    fields: dict[str, Any] = {
        "student": StudentRef(program="/student.pt2", sha256="1" * 64, fingerprint="a" * 32),
        "frames": FrameSpec(clip=clip, view=ViewSpec(width=8, height=8)),
        "teacher": teacher,
        "targets": "b" * 32,
        "classes": classes,
        "label_map": {"walking": "walk"},
        "policy": PolicySpec(kind="top-k", k=1, score="msp"),
        "aggregation": "replace-mean",
    }
    return LabelSpec(**{**fields, **changes})


def make_labels(
    folder: Path | str, videos: Sequence[Made], *, spec: LabelSpec | None = None, finished: bool = True
) -> ShardStore:
    """A label store of these videos, two clips or more a shard; where it is not finished the last shard is pending."""
    spec = spec or label_spec()
    store = ShardStore.create(
        str(folder),
        kind=LABELS,
        name="labels",
        fingerprint=spec.fingerprint(),
        spec=spec.model_dump(mode="json"),
    )
    rows, by_id = [], {}
    for number, made in enumerate(videos):
        planned = len(made.clips) + made.missing
        about = {"width": 320, "height": 240, "label": "walk", **(made.plan or {})}
        row = plan_row(number, planned, **about)
        rows.append(row)
        by_id[row["video_id"]] = made
    store.add_plan(dealt(rows, 6))
    pending = store.pending()
    for key in pending if finished else pending[:-1]:
        shard = store.shard(key)
        store.commit(shard, _result(spec, shard, by_id))
    return store


def _result(spec: LabelSpec, shard: Shard, by_id: Mapping[str, Made]) -> ShardResult:
    rows: list[Row] = []
    failures = []
    for video in shard.videos:
        made = by_id[video.video_id]
        spans = clip_spans(video.start_us, video.end_us, spec.clip)
        for span, clip in zip(spans, made.clips, strict=False):
            rows.append((video.video_id, span.start_us, span.end_us, 1.0, clip.damaged, _answer(clip)))
        damaged = sum(clip.damaged for clip in made.clips)
        if made.missing or damaged:
            failures.append(
                Failure(video.video_id, video.uri, "decode", "Damaged", "…", True, 1, made.missing, damaged)
            )
    rows.sort(key=lambda row: row[:2])
    return ShardResult(label_table(spec, rows), tuple(failures), {})


def _answer(clip: Clip) -> ClipAnswer:
    teacher = clip.teacher if clip.teacher is not None else clip.audit
    return ClipAnswer(
        student_logits_K=None if clip.student is None else _logits(clip.student, clip.sure),
        teacher_logits_SK=None if teacher is None else _logits(teacher, clip.sure)[None],
        deferred=clip.teacher is not None,
        audited=clip.audit is not None,
        score=0.5,
    )


def _logits(number: int, sure: float) -> np.ndarray:
    logits = np.linspace(0.2, 0.0, len(CLASSES), dtype=np.float32)
    logits[number] += sure
    return logits


EVERY_KIND = {
    "audit": Made([Clip(0, audit=1), Clip(0, audit=1)]),
    "models": Made([Clip(0, teacher=2), Clip(0)]),
    "manifest": Made([Clip(1), Clip(1)]),
    "unlabelled": Made([Clip(None), Clip(None)]),
    "damaged": Made([Clip(0, damaged=True), Clip(0)], missing=1),
    "close": Made([Clip(0, sure=0.05)]),
    "sure": Made([Clip(0), Clip(0)]),
    "unreadable": Made(missing=2),
}
"""A video for each reason to look at one, by that reason, in the order in which they should be looked at."""

ID_OF = {kind: video_id(number) for number, kind in enumerate(EVERY_KIND)}
URI_OF = {kind: f"/v/{number}.mp4" for number, kind in enumerate(EVERY_KIND)}
