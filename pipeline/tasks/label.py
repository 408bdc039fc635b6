"""LabelTask: the student looks at a shard's clips, the policy decides, the teacher looks at those it is called for.

Both see frames of one decoding. Whole videos are decided on, some at a time, in plan order: clips of different videos
share batches, and never across shards, so that a shard that is computed again gives the same rows. The teacher's frames
wait until their video is decided on; beyond a bound they wait on disk.

The student sees what it was trained and judged on: frames that have been through the JPEG that they are kept as.

Shapes: N clips, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Clip, FrameRequest, FrameSource, Stream, VideoEnd
from pipeline.select.decision import Policy, steps_of
from pipeline.select.policies import policy_of
from pipeline.select.scores import ClipScores, clip_scores, deferral
from pipeline.select.whole import Audited
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.tasks.held import HeldFrames
from pipeline.tasks.labels_table import ClipAnswer, label_table
from pipeline.tasks.shard_clock import ShardClock
from pipeline.tasks.teach import which_clip
from schemas.arrays import Bools, Float32
from schemas.clip import ClipSpan
from schemas.errors import ModelError
from schemas.labels import LabelSpec
from schemas.shard import Failure, Shard, ShardResult

if TYPE_CHECKING:
    from pipeline.models.exported_student import ExportedStudent
    from pipeline.models.teacher import Teacher

STUDENT_BATCH = 32
TEACHER_BATCH = 8
_HELD_BYTES = 256 << 20


@dataclass(frozen=True)
class LabelTask:
    """``spec`` determines the rows; the rest only how fast they come."""

    spec: LabelSpec
    batch_size: int = TEACHER_BATCH
    device: str = "auto"
    num_threads: int | None = None
    held_bytes: int = _HELD_BYTES

    @property
    def asks_student(self) -> bool:
        """Whether the student is asked about any clip."""
        return policy_of(self.spec.policy).asks_student

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher can be asked about any clip."""
        return self.spec.policy.kind != "student-alone" or self.spec.audit_share > 0

    @property
    def request(self) -> FrameRequest:
        teacher = Stream(self.spec.teacher.clip.num_frames, self.spec.teacher.view)
        decode = self.spec.teacher.decode
        if not self.asks_student:
            return FrameRequest(self.spec.teacher.clip, self.spec.teacher.view, decode)
        also = (teacher,) if self.asks_teacher else ()
        return FrameRequest(self.spec.frames.clip, self.spec.frames.view, decode, also)

    def on(self, *, gpu: bool, num_threads: int) -> LabelTask:
        device = "cpu" if self.device == "auto" and not gpu else self.device
        return replace(self, device=device, num_threads=self.num_threads or num_threads)

    def start(self) -> LabelRun:
        from pipeline.models.exported_student import ExportedStudent
        from pipeline.models.teacher import Teacher

        student = teacher = None
        if self.asks_student:
            ref = self.spec.student
            student = ExportedStudent(
                ref.program, ref.sha256, device=self.device, num_threads=self.num_threads
            )
        if self.asks_teacher:
            teacher = Teacher(
                self.spec.teacher,
                device=self.device,
                batch_size=self.batch_size,
                num_threads=self.num_threads,
            )
        return LabelRun(self, student, teacher)


@dataclass(eq=False)
class _Waiting:
    """One clip, from when its frames come to when both models have said what they are asked."""

    video_id: str
    span: ClipSpan
    damaged: bool
    decode_ms: float
    student_frames: NDArray[np.uint8] | None
    held: int | None
    """Number of the teacher's frames."""
    answer: ClipAnswer = field(default_factory=ClipAnswer)


class LabelRun:
    """Holds both models."""

    def __init__(self, task: LabelTask, student: ExportedStudent | None, teacher: Teacher | None) -> None:
        self._task, self._student, self._teacher = task, student, teacher
        self._policy: Policy = policy_of(task.spec.policy)
        self._held = HeldFrames(task.held_bytes)

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        self._held.close()  # of a shard that ended in an exception
        clock = ShardClock()
        rows: list[_Waiting] = []
        failures: list[Failure] = []
        asked: list[_Waiting] = []
        some: list[_Waiting] = []
        for clips, failure in self._videos(shard, frames, clock):
            if failure is not None:
                failures.append(failure)
            some += clips
            if len(some) >= STUDENT_BATCH:
                asked += self._decide(some, clock)
                rows += some
                some = []
            asked = self._ask_teacher(asked, shard, clock, least=self._task.batch_size)
        asked += self._decide(some, clock)
        rows += some
        self._ask_teacher(asked, shard, clock, least=1)
        spec = self._task.spec
        answers = [
            (w.video_id, w.span.start_us, w.span.end_us, w.decode_ms, w.damaged, w.answer) for w in rows
        ]
        table = label_table(spec, answers)
        clock.add("table")
        decode = sum(w.decode_ms for w in rows) / 1e3
        return ShardResult(table, tuple(failures), clock.seconds | {"decode": decode})

    def close(self) -> None:
        self._held.close()
        self._student = self._teacher = None

    # ---------------------------------------------------------------- frames

    def _videos(
        self, shard: Shard, frames: FrameSource, clock: ShardClock
    ) -> Iterator[tuple[list[_Waiting], Failure | None]]:
        """The clips of each video, once it has ended; none of one that failed for now."""
        clips: list[_Waiting] = []
        for event in frames.stream(shard, self._task.request):
            clock.add("wait")
            if isinstance(event, Clip):
                clips.append(self._received(event))
                clock.add("student view")
                continue
            if not isinstance(event, VideoEnd):
                raise TypeError(f"frames were asked for, a {type(event).__name__} came")
            if event.failure is not None and not event.failure.permanent:
                for clip in clips:
                    if clip.held is not None:
                        self._held.drop(clip.held)
                clips = []
            yield clips, event.failure
            clips = []
        clock.add("wait")

    def _received(self, clip: Clip) -> _Waiting:
        damaged = bool(clip.damage) or any(stream.damage for stream in clip.also)
        student = held = None
        if self._student is None:
            held = self._held.put(clip.frames_VTHWC)
        else:
            kept = self._task.spec.frames
            sheet = encode_sheet(clip.frames_VTHWC[0], kept.quality)
            student = decode_sheet(sheet, kept.clip.num_frames)
            if clip.also:
                held = self._held.put(clip.also[0].frames_VTHWC)
        return _Waiting(clip.video_id, clip.span, damaged, clip.decode_ms, student, held)

    # ---------------------------------------------------------------- deciding

    def _decide(self, clips: Sequence[_Waiting], clock: ShardClock) -> list[_Waiting]:
        """Ask the student about whole videos as the policy wants; the clips that the teacher is called for."""
        if not clips:
            return []
        spec = self._task.spec
        clips = sorted(clips, key=lambda c: (c.video_id, c.span.start_us))
        scores = self._scores(clips)
        looked_N: Bools = np.zeros(len(clips), np.bool_)
        steps = steps_of(self._policy, scores)
        wanted_N = next(steps)
        while True:
            self._look(clips, np.flatnonzero(wanted_N & ~looked_N), clock)
            looked_N = wanted_N | looked_N
            scores = self._scores(clips)
            try:
                wanted_N = steps.send(scores)
            except StopIteration as done:
                decision = done.value
                break
        audit = Audited(self._policy, spec.audit_share, spec.audit_seed)
        audited_N = audit.drawn(scores)[scores.video_N]
        value_N = score_of(self._policy, scores)
        for i, clip in enumerate(clips):
            answer = clip.answer
            answer.deferred, answer.audited = bool(decision.teacher_N[i]), bool(audited_N[i])
            if value_N is not None and looked_N[i]:
                answer.score = float(value_N[i])
            if decision.inclusion_N is not None:
                answer.inclusion = float(decision.inclusion_N[i])
            clip.student_frames = None
            if clip.held is not None and not (answer.deferred or answer.audited):
                self._held.drop(clip.held)
        clock.add("decide")
        return [c for c in clips if c.answer.deferred or c.answer.audited]

    def _look(self, clips: Sequence[_Waiting], rows: NDArray[np.intp], clock: ShardClock) -> None:
        """The student's word on some clips."""
        for first in range(0, len(rows), STUDENT_BATCH):
            batch = [clips[i] for i in rows[first : first + STUDENT_BATCH].tolist()]
            frames = [c.student_frames for c in batch if c.student_frames is not None]
            if self._student is None or len(frames) != len(batch):
                raise ValueError("a clip was to be looked at of which the student has no frames")
            before = clock.total("student")
            logits_NK, confidences_N2 = self._student(np.stack(frames))
            clock.add("student")
            each_ms = (clock.total("student") - before) * 1e3 / len(batch)
            for clip, logits_K, confidences in zip(batch, logits_NK, confidences_N2, strict=True):
                clip.answer.student_logits_K = logits_K
                clip.answer.student_right, clip.answer.teacher_right = map(float, confidences)
                clip.answer.student_ms = each_ms

    def _scores(self, clips: Sequence[_Waiting]) -> ClipScores:
        """What the student has said of some clips, nan where nothing. Clips come sorted, as rows of scores are."""
        answers = [c.answer for c in clips]
        none_K: Float32 = np.full(self._task.spec.teacher.teacher.num_classes or 1, np.nan, np.float32)
        logits_NK = np.stack([none_K if a.student_logits_K is None else a.student_logits_K for a in answers])
        nan = float("nan")
        return clip_scores(
            [c.video_id for c in clips],
            np.array([c.span.start_us for c in clips], np.int64),
            np.array([c.span.end_us for c in clips], np.int64),
            (logits_NK / self._task.spec.student_temperature).astype(np.float32),
            np.array([nan if a.student_right is None else a.student_right for a in answers], np.float32),
            np.array([nan if a.teacher_right is None else a.teacher_right for a in answers], np.float32),
        )

    # ---------------------------------------------------------------- the teacher

    def _ask_teacher(
        self, asked: list[_Waiting], shard: Shard, clock: ShardClock, *, least: int
    ) -> list[_Waiting]:
        """Ask about clips in full batches, as long as there are ``least``; those that are left."""
        size = self._task.batch_size
        while len(asked) >= least and asked:
            batch, asked = asked[:size], asked[size:]
            if self._teacher is None:
                raise ValueError("a clip was deferred, and there is no teacher")
            frames = [self._held.take(c.held) for c in batch if c.held is not None]
            clock.add("held frames")
            before = clock.total("teacher")
            try:
                logits_NSK = self._teacher.logits(frames)
            except ModelError as e:
                keys = [(c.video_id, c.span.start_us) for c in batch]
                raise ModelError(f"{e}{which_clip(e, keys, shard)}", clip_index=e.clip_index) from e
            clock.add("teacher")
            each_ms = (clock.total("teacher") - before) * 1e3 / len(batch)
            for clip, logits_SK in zip(batch, logits_NSK, strict=True):
                clip.answer.teacher_logits_SK, clip.answer.teacher_ms = logits_SK, each_ms
        return asked


def score_of(policy: Policy, scores: ClipScores) -> NDArray[np.float64] | None:
    """The score that a policy goes by, where it goes by one; (N,)."""
    name = getattr(policy, "score", None)
    return None if name is None else deferral(scores, name)
