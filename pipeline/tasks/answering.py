"""Student and teacher over clips in hand: the student looks as the policy wants, the policy decides, the teacher is
asked.

Knows nothing of where frames come from, nor when; see `pipeline.tasks.label_once` and `pipeline.tasks.label_twice`.

Shapes: N clips, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.frames import Clip
from pipeline.select.context import Context
from pipeline.select.decision import Policy, steps_of
from pipeline.select.policies import policy_of, score_of
from pipeline.select.scores import ClipScores, clip_scores
from pipeline.select.whole import drawn_for_audit
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.tasks.labels_table import ClipAnswer, Row
from pipeline.tasks.shard_clock import ShardClock
from pipeline.tasks.teach import which_clip
from schemas.arrays import Bools, Float32
from schemas.errors import ModelError
from schemas.frames import FrameSpec
from schemas.labels import LabelSpec
from schemas.shard import Shard

if TYPE_CHECKING:
    from pipeline.models.exported_student import ExportedStudent
    from pipeline.models.teacher import Teacher

STUDENT_BATCH = 32
Frames = NDArray[np.uint8]


@dataclass(eq=False)
class ClipInHand:
    """One clip, from when it is first seen to when both models have said what they are asked."""

    video_id: str
    start_us: int
    end_us: int
    damage: str
    """What is wrong with the frames that were looked at, in words; empty where nothing is."""
    decode_ms: float
    teacher_damage: str = ""
    """The same of the teacher's, which counts where it is asked."""
    student_frames: Frames | None = None
    teacher_frames: Frames | None = None
    held: int | None = None
    """Number of the teacher's frames among `HeldFrames`."""
    idle: bool = False
    """Left out by what its packets say: nobody is asked, but for an audit."""
    answer: ClipAnswer = field(default_factory=ClipAnswer)

    @property
    def key(self) -> tuple[str, int]:
        return self.video_id, self.start_us

    def row(self) -> Row:
        """As a row of the label table."""
        return self.video_id, self.start_us, self.end_us, self.decode_ms, bool(self.damage), self.answer


def as_kept(frames_THWC: Frames, kept: FrameSpec) -> Frames:
    """What the student was trained and judged on: frames that have been through the JPEG that they are kept as."""
    return decode_sheet(encode_sheet(frames_THWC, kept.quality), kept.clip.num_frames)


def in_hand(clip: Clip) -> ClipInHand:
    """A clip that was just decoded, without its frames."""
    also = next((stream.damage for stream in clip.also if stream.damage), "")
    return ClipInHand(
        clip.video_id,
        clip.span.start_us,
        clip.span.end_us,
        clip.damage,
        clip.decode_ms,
        teacher_damage=also,
        idle=clip.idle,
    )


class Answering:
    """Holds both models; either may be None where it is never asked. ``batch_size`` is the teacher's."""

    def __init__(
        self, spec: LabelSpec, student: ExportedStudent | None, teacher: Teacher | None, batch_size: int
    ) -> None:
        self._spec, self._student, self._teacher, self._batch_size = spec, student, teacher, batch_size
        self._policy: Policy = policy_of(spec.policy)
        self._context = None if spec.context is None else Context((spec.context,))

    def decide(self, clips: Sequence[ClipInHand], clock: ShardClock) -> list[ClipInHand]:
        """Ask the student about whole videos as the policy wants; the clips that the teacher is called for. Of idle
        clips neither knows, nor the policy."""
        clips = sorted(clips, key=lambda c: c.key)
        self._decide([c for c in clips if not c.idle], clock)
        asked = self.with_audits(clips)
        clock.add("decide")
        return asked

    def _decide(self, clips: Sequence[ClipInHand], clock: ShardClock) -> None:
        if not clips:
            return
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
        value_N = score_of(self._spec.policy, scores)
        for i, clip in enumerate(clips):
            answer = clip.answer
            answer.deferred = bool(decision.teacher_N[i])
            if value_N is not None and looked_N[i]:
                answer.score = float(value_N[i])
            if decision.inclusion_N is not None:
                answer.inclusion = float(decision.inclusion_N[i])
            clip.student_frames = None

    def with_audits(self, clips: Sequence[ClipInHand]) -> list[ClipInHand]:
        """The clips that are deferred, and those of audited videos."""
        audited = self.audited({c.video_id for c in clips})
        for clip in clips:
            clip.answer.audited = clip.video_id in audited
        return [c for c in clips if c.answer.deferred or c.answer.audited]

    def audited(self, video_ids: Collection[str]) -> set[str]:
        """Which of some videos are drawn to be audited."""
        ids = sorted(video_ids)
        drawn_V = drawn_for_audit(ids, self._spec.audit_share, self._spec.audit_seed)
        return {i for i, drawn in zip(ids, drawn_V.tolist(), strict=True) if drawn}

    def with_audits_in_full(self, shard: Shard) -> Shard:
        """The same videos; of those that are audited the teacher wants to see idle clips as well."""
        if not self._spec.idle or not self._spec.audit_share:
            return shard
        audited = self.audited({v.video_id for v in shard.videos})
        videos = (replace(v, in_full=v.video_id in audited) for v in shard.videos)
        return replace(shard, videos=tuple(videos))

    def ask(
        self,
        asked: list[ClipInHand],
        frames_of: Callable[[ClipInHand], Frames],
        shard: Shard,
        clock: ShardClock,
        *,
        to_end: bool,
    ) -> list[ClipInHand]:
        """Ask the teacher about clips in full batches; what is left over, which is nothing ``to_end``."""
        size = self._batch_size
        while len(asked) >= (1 if to_end else size):
            batch, asked = asked[:size], asked[size:]
            if self._teacher is None:
                raise ValueError("a clip was deferred, and there is no teacher")
            frames = [frames_of(c) for c in batch]
            clock.add("held frames")
            before = clock.total("teacher")
            try:
                logits_NSK = self._teacher.logits(frames)
            except ModelError as e:
                raise ModelError(
                    f"{e}{which_clip(e, [c.key for c in batch], shard)}", clip_index=e.clip_index
                ) from e
            clock.add("teacher")
            each_ms = (clock.total("teacher") - before) * 1e3 / len(batch)
            for clip, logits_SK in zip(batch, logits_NSK, strict=True):
                clip.answer.teacher_logits_SK, clip.answer.teacher_ms = logits_SK, each_ms
                clip.teacher_frames = None
        return asked

    def _look(self, clips: Sequence[ClipInHand], rows: NDArray[np.intp], clock: ShardClock) -> None:
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

    def _scores(self, clips: Sequence[ClipInHand]) -> ClipScores:
        """What the student has said of some clips, nan where nothing. Clips come sorted, as rows of scores are."""
        answers = [c.answer for c in clips]
        none_K: Float32 = np.full(self._spec.teacher.teacher.num_classes or 1, np.nan, np.float32)
        logits_NK = np.stack([none_K if a.student_logits_K is None else a.student_logits_K for a in answers])
        nan = float("nan")
        return clip_scores(
            [c.video_id for c in clips],
            np.array([c.start_us for c in clips], np.int64),
            np.array([c.end_us for c in clips], np.int64),
            (logits_NK / self._spec.student_temperature).astype(np.float32),
            np.array([nan if a.student_right is None else a.student_right for a in answers], np.float32),
            np.array([nan if a.teacher_right is None else a.teacher_right for a in answers], np.float32),
            self._context,
        )

    def close(self) -> None:
        self._student = self._teacher = None
