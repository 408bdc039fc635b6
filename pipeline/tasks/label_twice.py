"""Labels from two decodings: first what the student sees of all clips, then what the teacher sees of those it is called
for.

Where the student's view is cheap to decode (keyframes alone), or the teacher is called for little of a long video,
this costs less than one decoding for both. What the student said before may also come from elsewhere (`Scored`): then
there is only the second decoding.

A video that fails for the teacher alone: in passing, all of it fails in passing, so that `retry` does it again; for
good, the student's answers stand, marked as damaged where the teacher should have been asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.frames import Clip, Event, FrameRequest, FrameSource, VideoEnd
from pipeline.tasks.answering import STUDENT_BATCH, Answering, ClipInHand, Frames, as_kept, in_hand
from pipeline.tasks.label_accounts import accounted
from pipeline.tasks.labels_table import label_table
from pipeline.tasks.shard_clock import ShardClock
from schemas.labels import LabelSpec
from schemas.shard import Failure, Shard, ShardResult


@dataclass(frozen=True)
class FirstLook:
    """What is known of a shard's clips before the teacher is asked: sorted, with the student's answers and the policy's
    word; and what befell the videos."""

    clips: list[ClipInHand]
    failures: tuple[Failure, ...]


class Scored(Protocol):
    """Where the student's words, and what was decided by them, were written before."""

    def first_look(self, shard: Shard) -> FirstLook:
        """Of the videos of a shard, each time anew."""
        ...


class LabelTwice:
    """A `pipeline.tasks.task.TaskRun`. ``first`` asks for the student's frames, ``second`` for the teacher's."""

    def __init__(self, spec: LabelSpec, first: FrameRequest, second: FrameRequest, models: Answering) -> None:
        self._spec, self._first, self._second, self._models = spec, first, second, models

    def wanted(self, shard: Shard) -> Shard:
        return shard

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        clock = ShardClock()
        found = self._look(shard, frames, clock)
        part = _narrowed(shard, [c for c in found.clips if c.answer.deferred or c.answer.audited])
        events = frames.stream_ahead(part, self._second) if part.videos else iter(())
        before_ms = sum(c.decode_ms for c in found.clips)
        return second_look(self._spec, self._models, shard, found, events, clock, before_ms)

    def close(self) -> None:
        self._models.close()

    def _look(self, shard: Shard, frames: FrameSource, clock: ShardClock) -> FirstLook:
        rows: list[ClipInHand] = []
        some: list[ClipInHand] = []
        clips: list[ClipInHand] = []
        failures: list[Failure] = []
        for event in frames.stream(shard, self._first):
            clock.add("wait")
            if isinstance(event, Clip):
                clips.append(in_hand(event))
                if not event.idle:
                    clips[-1].student_frames = as_kept(event.frames_VTHWC[0], self._spec.frames)
                clock.add("student view")
                continue
            if not isinstance(event, VideoEnd):
                raise TypeError(f"frames were asked for, a {type(event).__name__} came")
            if event.failure is not None:
                failures.append(event.failure)
            if event.failure is None or event.failure.permanent:
                some += clips
            clips = []
            if len(some) >= STUDENT_BATCH:
                self._models.decide(some, clock)
                rows += some
                some = []
        clock.add("wait")
        self._models.decide(some, clock)
        return FirstLook([*rows, *some], tuple(failures))


class LabelChosen:
    """A `pipeline.tasks.task.TaskRun` over clips that were decided on before: only the teacher is asked."""

    def __init__(self, spec: LabelSpec, second: FrameRequest, models: Answering, scored: Scored) -> None:
        self._spec, self._second, self._models, self._scored = spec, second, models, scored

    def wanted(self, shard: Shard) -> Shard:
        return _narrowed(shard, self._models.with_audits(self._scored.first_look(shard).clips))

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        clock = ShardClock()
        found = self._scored.first_look(shard)
        part = _narrowed(shard, self._models.with_audits(found.clips))
        clock.add("scores")
        return second_look(self._spec, self._models, shard, found, frames.stream(part, self._second), clock)

    def close(self) -> None:
        self._models.close()


def second_look(
    spec: LabelSpec,
    models: Answering,
    shard: Shard,
    found: FirstLook,
    events: Iterator[Event],
    clock: ShardClock,
    decode_ms: float = 0.0,
) -> ShardResult:
    """Ask the teacher about the clips of ``events``, and put the rows together. ``decode_ms`` is what decoding took
    before, in this run: rows also hold what it took in another."""
    clips = {c.key: c for c in found.clips}
    asked: list[ClipInHand] = []
    failed: dict[str, Failure] = {}
    for event in events:
        clock.add("wait")
        if isinstance(event, Clip):
            clip = clips[event.video_id, event.span.start_us]
            clip.teacher_damage = event.damage
            clip.decode_ms += event.decode_ms
            decode_ms += event.decode_ms
            clip.teacher_frames = event.frames_VTHWC
            asked = models.ask([*asked, clip], _frames, shard, clock, to_end=False)
        elif isinstance(event, VideoEnd):
            if event.failure is not None:
                failed[event.video_id] = event.failure
                if not event.failure.permanent:
                    asked = [c for c in asked if c.video_id != event.video_id]
        else:
            raise TypeError(f"frames were asked for, a {type(event).__name__} came")
    clock.add("wait")
    models.ask(asked, _frames, shard, clock, to_end=True)
    rows, failures = accounted(shard, found.clips, found.failures, failed, spec.teacher.decode.backend)
    table = label_table(spec, [c.row() for c in rows])
    clock.add("table")
    return ShardResult(table, failures, clock.seconds | {"decode": decode_ms / 1e3})


def _narrowed(shard: Shard, asked: Sequence[ClipInHand]) -> Shard:
    """The shard with only these clips, and the videos that have some."""
    starts: dict[str, list[int]] = {}
    for clip in asked:
        starts.setdefault(clip.video_id, []).append(clip.start_us)
    videos = (replace(v, only_us=tuple(starts[v.video_id])) for v in shard.videos if v.video_id in starts)
    return Shard(shard.key, tuple(videos))


def _frames(clip: ClipInHand) -> Frames:
    if clip.teacher_frames is None:
        raise ValueError(f"no frames came of the clip at {clip.start_us} us of {clip.video_id}")
    return clip.teacher_frames
