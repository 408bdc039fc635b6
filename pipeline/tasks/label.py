"""LabelTask: the student looks at a shard's clips, the policy decides, the teacher looks at those it is called for.

Frames come from one decoding for both (`pipeline.tasks.label_once`), or from two (`pipeline.tasks.label_twice`); the
answers are the same where both views are of one decoder. Or what the student says, and what was decided, is known
already, and only the teacher is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.frames import FrameRequest, Stream
from pipeline.select.policies import policy_of
from pipeline.tasks.answering import Answering
from pipeline.tasks.label_once import LabelOnce
from pipeline.tasks.label_twice import LabelChosen, LabelTwice, Scored
from pipeline.tasks.task import TaskRun
from schemas.labels import LabelSpec

TEACHER_BATCH = 8
_HELD_BYTES = 256 << 20


@dataclass(frozen=True)
class LabelTask:
    """``spec`` determines the rows; the rest only how fast they come. ``decodings`` counts where student and teacher
    see the same decoding; where they do not there are always two. ``scored`` has what the student said before."""

    spec: LabelSpec
    batch_size: int = TEACHER_BATCH
    device: str = "auto"
    num_threads: int | None = None
    held_bytes: int = _HELD_BYTES
    decodings: Literal[1, 2] = 1
    scored: Scored | None = None

    @property
    def asks_student(self) -> bool:
        """Whether the student is asked about any clip."""
        return self.scored is None and policy_of(self.spec.policy).asks_student

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher can be asked about any clip."""
        return self.spec.policy.kind != "student-alone" or self.spec.audit_share > 0

    @property
    def decodes_twice(self) -> bool:
        """Whether the teacher's frames are decoded by themselves, after the student's."""
        both = self.asks_student and self.asks_teacher
        return both and (self.decodings == 2 or not self.spec.sees_one_decoding)

    @property
    def request(self) -> FrameRequest:
        if not self.asks_student:
            return replace(self.teacher_request, idle=self.spec.idle if self.scored is None else 0.0)
        frames, teacher = self.spec.frames, self.spec.teacher
        also = () if self.decodes_twice or not self.asks_teacher else (_stream(self.teacher_request),)
        decode = frames.decode if not also else teacher.decode
        return FrameRequest(frames.clip, frames.view, decode, also, self.spec.idle)

    @property
    def teacher_request(self) -> FrameRequest:
        """The teacher's frames by themselves."""
        teacher = self.spec.teacher
        return FrameRequest(teacher.clip, teacher.view, teacher.decode)

    def on(self, *, gpu: bool, num_threads: int) -> LabelTask:
        device = "cpu" if self.device == "auto" and not gpu else self.device
        return replace(self, device=device, num_threads=self.num_threads or num_threads)

    def start(self) -> TaskRun:
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
        models = Answering(self.spec, student, teacher, self.batch_size)
        if self.scored is not None:
            return LabelChosen(self.spec, self.teacher_request, models, self.scored)
        if self.decodes_twice:
            return LabelTwice(self.spec, self.request, self.teacher_request, models)
        return LabelOnce(self.spec, self.request, models, self.held_bytes, self.asks_student)


def _stream(request: FrameRequest) -> Stream:
    return Stream(request.clip.num_frames, request.view)
