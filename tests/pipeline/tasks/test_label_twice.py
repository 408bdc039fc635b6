"""The teacher's second look: what becomes of a video that fails for the teacher alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from pipeline.frames import Clip, Event, Request, VideoEnd
from pipeline.tasks.answering import Answering
from pipeline.tasks.label_twice import LabelTwice
from schemas.clip import ClipSpec
from schemas.frames import FrameSpec
from schemas.labels import LabelSpec, StudentRef
from schemas.model import ModelRef
from schemas.policy import PolicySpec
from schemas.shard import Failure, Shard, ShardKey
from schemas.targets import DecodeSpec, TargetSpec, ViewSpec
from schemas.video import Video

CLASSES = ("left", "right")
SIDE = ViewSpec(width=8, height=8)
CLIP = ClipSpec(num_frames=2, seconds=1.0)
SPEC = LabelSpec(
    student=StudentRef(program="student.pt2", sha256="0" * 64, fingerprint="0" * 32),
    frames=FrameSpec(clip=CLIP, view=SIDE, decode=DecodeSpec(key_frames=True)),
    teacher=TargetSpec(teacher=ModelRef(factory="m:f", num_classes=2, classes=CLASSES), clip=CLIP, view=SIDE),
    targets="0" * 32,
    classes=CLASSES,
    policy=PolicySpec(kind="top-k", k=2, score="msp"),
    aggregation="replace-mean",
)
NAMES = ("aa" * 16, "bb" * 16, "cc" * 16)
SHARD = Shard(ShardKey(1, 0), tuple(Video(n, f"{n[:2]}.mp4", 0, 3_000_000, 3) for n in NAMES))


class Student:
    """Surer of later frames: the shade of a clip is its number."""

    def __call__(self, frames_NTHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shade = frames_NTHWC.mean(axis=(1, 2, 3, 4)) / 100
        return np.stack([shade, 0 * shade], axis=1).astype(np.float32), np.full((len(shade), 2), 0.5)


class Teacher:
    """Says the second class, and notes how many clips it was asked about at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def logits(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append(len(frames))
        return np.tile(np.array([0.0, 3.0], np.float32), (len(frames), 1, 1))


class Frames:
    """Answers as told: the damage of a clip, and how videos end, for the second look."""

    def __init__(
        self, failures: dict[str, Failure], damage: dict[tuple[str, int], str], first: dict[str, Failure]
    ) -> None:
        self.failures, self.damage, self.first = failures, damage, first
        self.asked: list[tuple[str, tuple[int, ...] | None]] = []

    def stream(self, shard: Shard, request: Request) -> Iterator[Event]:
        yield from self._events(shard, request, self.first, {})

    def prefetch(self, shard: Shard, request: Request) -> None:
        raise AssertionError("nobody prefetches here")

    def stream_ahead(self, shard: Shard, request: Request) -> Iterator[Event]:
        self.asked += [(v.video_id, v.only_us) for v in shard.videos]
        yield from self._events(shard, request, self.failures, self.damage)

    def close(self) -> None:
        pass

    def _events(
        self,
        shard: Shard,
        request: Request,
        failures: dict[str, Failure],
        damage: dict[tuple[str, int], str],
    ) -> Iterator[Event]:
        for video in shard.videos:
            failure = failures.get(video.video_id)
            spans = request.spans_of(video)  # type: ignore[union-attr]
            for span in spans[: len(spans) - (failure.missing_rows if failure else 0)]:
                shade = 20 * (1 + span.start_us // 1_000_000)
                frames = np.full((1, 2, 8, 8, 3), shade, np.uint8)
                yield Clip(video.video_id, span, frames, damage.get((video.video_id, span.start_us), ""), 1.0)
            yield VideoEnd(video.video_id, failure)


def failure(video_id: str, missing: int, permanent: bool, damaged: int = 0) -> Failure:
    return Failure(video_id, "x.mp4", "decode", "Torn", "torn", permanent, 1, missing, damaged)


def run(
    failures: dict[str, Failure] | None = None,
    damage: dict[tuple[str, int], str] | None = None,
    first: dict[str, Failure] | None = None,
) -> tuple[list[dict[str, object]], dict[str, Failure], Frames, Teacher]:
    teacher, frames = Teacher(), Frames(failures or {}, damage or {}, first or {})
    models = Answering(SPEC, Student(), teacher, 4)  # type: ignore[arg-type]
    task_first, task_second = _requests()
    result = LabelTwice(SPEC, task_first, task_second, models).run(SHARD, frames)
    return result.table.to_pylist(), {f.video_id: f for f in result.failures}, frames, teacher


def _requests() -> tuple[Request, Request]:
    from pipeline.tasks.label import LabelTask

    task = LabelTask(SPEC)
    assert task.decodes_twice and task.request.decode.key_frames
    assert not task.teacher_request.decode.key_frames
    return task.request, task.teacher_request


def test_only_the_clips_that_are_deferred_are_decoded_again() -> None:
    rows, failures, frames, teacher = run()
    assert frames.asked == [(n, (0, 1_000_000)) for n in NAMES]
    assert teacher.batches == [4, 2] and not failures and len(rows) == 9
    assert [r["answered_by"] for r in rows[:3]] == ["teacher", "teacher", "student"]
    assert [r["decode_ms"] for r in rows[:3]] == [2.0, 2.0, 1.0]
    assert not any(r["damaged"] for r in rows)


def test_a_video_that_fails_in_passing_for_the_teacher_fails_in_passing() -> None:
    rows, failures, _, _ = run({NAMES[1]: failure(NAMES[1], 1, permanent=False)})
    assert {r["video_id"] for r in rows} == {NAMES[0], NAMES[2]}
    (found,) = failures.values()
    assert (found.video_id, found.missing_rows, found.damaged_rows, found.permanent) == (
        NAMES[1],
        3,
        0,
        False,
    )


def test_where_the_teacher_can_never_see_a_clip_the_students_word_stands_and_is_marked() -> None:
    rows, failures, _, _ = run({NAMES[1]: failure(NAMES[1], 1, permanent=True)})
    mine = [r for r in rows if r["video_id"] == NAMES[1]]
    assert [r["answered_by"] for r in mine] == ["teacher", "student", "student"]
    assert [r["deferred"] for r in mine] == [True, True, False]
    assert [r["damaged"] for r in mine] == [False, True, False]
    (found,) = failures.values()
    assert (found.missing_rows, found.damaged_rows, found.permanent) == (0, 1, True)
    assert sum(r["damaged"] for r in rows) == 1


def test_failures_of_both_looks_are_one() -> None:
    torn = {NAMES[0]: failure(NAMES[0], 0, permanent=True, damaged=1)}
    short = {NAMES[0]: failure(NAMES[0], 1, permanent=True)}
    rows, failures, _, _ = run(torn, {(NAMES[0], 1_000_000): "grey"}, short)
    mine = [r for r in rows if r["video_id"] == NAMES[0]]
    assert len(mine) == 2 and [r["damaged"] for r in mine] == [False, True]
    (found,) = failures.values()
    assert (found.missing_rows, found.damaged_rows) == (1, 1)


@pytest.mark.parametrize("permanent", [True, False])
def test_what_fails_at_first_is_not_looked_at_again_beyond_what_came(permanent: bool) -> None:
    rows, failures, frames, _ = run(first={NAMES[2]: failure(NAMES[2], 3, permanent=permanent)})
    assert [v for v, _ in frames.asked] == list(NAMES[:2])
    assert len(rows) == 6 and failures[NAMES[2]].missing_rows == 3
