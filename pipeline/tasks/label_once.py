"""Labels from one decoding: student and teacher see frames of the same pass over each video.

Whole videos are decided on, some at a time, in plan order: clips of different videos share batches, and never across
shards, so that a shard that is computed again gives the same rows. The teacher's frames wait until their video is
decided on; beyond a bound they wait on disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.frames import Clip, FrameRequest, FrameSource, VideoEnd
from pipeline.tasks.answering import STUDENT_BATCH, Answering, ClipInHand, Frames, as_kept, in_hand
from pipeline.tasks.held import HeldFrames
from pipeline.tasks.label_accounts import accounted
from pipeline.tasks.labels_table import label_table
from pipeline.tasks.shard_clock import ShardClock
from schemas.labels import LabelSpec
from schemas.shard import Failure, Shard, ShardResult


class LabelOnce:
    """A `pipeline.tasks.task.TaskRun`. ``asks_student``: the first stream of ``request`` is the student's, and the
    teacher's comes with it; else it is the teacher's."""

    def __init__(
        self, spec: LabelSpec, request: FrameRequest, models: Answering, held_bytes: int, asks_student: bool
    ) -> None:
        self._spec, self._request, self._models = spec, request, models
        self._asks_student = asks_student
        self._held = HeldFrames(held_bytes)

    def wanted(self, shard: Shard) -> Shard:
        return self._models.with_audits_in_full(shard)

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        self._held.close()  # of a shard that ended in an exception
        clock = ShardClock()
        rows: list[ClipInHand] = []
        failures: list[Failure] = []
        asked: list[ClipInHand] = []
        some: list[ClipInHand] = []

        def ask(to_end: bool) -> list[ClipInHand]:
            return self._models.ask(asked, self._taken, shard, clock, to_end=to_end)

        for clips, failure in self._videos(shard, frames, clock):
            if failure is not None:
                failures.append(failure)
            some += clips
            if len(some) >= STUDENT_BATCH:
                asked += self._decide(some, clock)
                rows += some
                some = []
            asked = ask(False)
        asked += self._decide(some, clock)
        rows += some
        ask(True)
        rows, found = accounted(shard, rows, failures, {}, self._spec.teacher.decode.backend)
        table = label_table(self._spec, [c.row() for c in rows])
        clock.add("table")
        decode = sum(c.decode_ms for c in rows) / 1e3
        return ShardResult(table, found, clock.seconds | {"decode": decode})

    def close(self) -> None:
        self._held.close()
        self._models.close()

    def _videos(
        self, shard: Shard, frames: FrameSource, clock: ShardClock
    ) -> Iterator[tuple[list[ClipInHand], Failure | None]]:
        """The clips of each video, once it has ended; none of one that failed for now."""
        clips: list[ClipInHand] = []
        for event in frames.stream(self.wanted(shard), self._request):
            clock.add("wait")
            if isinstance(event, Clip):
                clips.append(self._received(event))
                clock.add("student view")
                continue
            if not isinstance(event, VideoEnd):
                raise TypeError(f"frames were asked for, a {type(event).__name__} came")
            if event.failure is not None and not event.failure.permanent:
                for clip in clips:
                    self._drop(clip)
                clips = []
            yield clips, event.failure
            clips = []
        clock.add("wait")

    def _received(self, clip: Clip) -> ClipInHand:
        found = in_hand(clip)
        if clip.idle and not clip.frames_VTHWC.size:
            return found
        if not self._asks_student:
            found.held = self._held.put(clip.frames_VTHWC)
        else:
            if not clip.idle:
                found.student_frames = as_kept(clip.frames_VTHWC[0], self._spec.frames)
            if clip.also:
                found.held = self._held.put(clip.also[0].frames_VTHWC)
        return found

    def _decide(self, clips: list[ClipInHand], clock: ShardClock) -> list[ClipInHand]:
        asked = self._models.decide(clips, clock)
        for clip in clips:
            if not (clip.answer.deferred or clip.answer.audited):
                self._drop(clip)
        return asked

    def _drop(self, clip: ClipInHand) -> None:
        if clip.held is not None:
            self._held.drop(clip.held)
            clip.held = None

    def _taken(self, clip: ClipInHand) -> Frames:
        if clip.held is None:
            raise ValueError(f"no frames are held of the clip at {clip.start_us} us of {clip.video_id}")
        number, clip.held = clip.held, None
        return self._held.take(number)
