"""TeachTask: run the teacher over a shard's clips and keep what it says of each.

Clips of different videos share batches, in plan order and never across shards, so a shard that is computed again
is computed in the same batches and gives the same bits.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frames import Clip, FrameRequest, FrameSource, Stream, VideoEnd
from pipeline.tasks.keep_frames import KeptRow, kept_row, kept_table
from pipeline.tasks.shard_clock import ShardClock
from pipeline.tasks.targets_table import target_table
from schemas.clip import US
from schemas.errors import ModelError
from schemas.frames import FrameSpec
from schemas.shard import Failure, Shard, ShardResult
from schemas.targets import TargetSpec

if TYPE_CHECKING:
    from pipeline.models.teacher import Teacher


DEFAULT_BATCH = 8


@dataclass(frozen=True)
class TeachTask:
    """``spec`` determines the numbers; the rest only how fast they come."""

    spec: TargetSpec
    batch_size: int = DEFAULT_BATCH
    device: str = "auto"
    compile: bool = False
    num_threads: int | None = None
    keep: FrameSpec | None = None
    """Frames of the same clips that are kept beside, of the same decoding."""

    @property
    def request(self) -> FrameRequest:
        also = () if self.keep is None else (Stream(self.keep.clip.num_frames, self.keep.view),)
        return FrameRequest(self.spec.clip, self.spec.view, self.spec.decode, also)

    def on(self, *, gpu: bool, num_threads: int) -> TeachTask:
        device = "cpu" if self.device == "auto" and not gpu else self.device
        return replace(self, device=device, num_threads=self.num_threads or num_threads)

    def teacher(self) -> Teacher:
        """The teacher, loaded in this process."""
        from pipeline.models.teacher import Teacher

        return Teacher(
            self.spec,
            device=self.device,
            batch_size=self.batch_size,
            compile=self.compile,
            num_threads=self.num_threads,
        )

    def start(self) -> TeachRun:
        return TeachRun(self, self.teacher())


@dataclass
class _Rows:
    """Rows of a shard under way: what is known of each clip, and its logits once they are there."""

    clips: list[tuple[str, int, int, float, bool]] = field(default_factory=list)
    logits_SK: list[np.ndarray] = field(default_factory=list)
    teacher_ms: list[float] = field(default_factory=list)

    @property
    def decode_seconds(self) -> float:
        return sum(clip[3] for clip in self.clips) / 1e3


class TeachRun:
    """Holds the teacher."""

    def __init__(self, task: TeachTask, teacher: Teacher) -> None:
        self._task, self._teacher = task, teacher

    def wanted(self, shard: Shard) -> Shard:
        return shard

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        rows, failures, keep = _Rows(), [], self._task.keep
        kept: list[KeptRow] = []
        waiting: list[Clip] = []
        clock = ShardClock()
        for event in frames.stream(shard, self._task.request):
            clock.add("wait")
            if isinstance(event, VideoEnd):
                if event.failure is not None:
                    failures.append(event.failure)
                continue
            if not isinstance(event, Clip):
                raise TypeError(f"frames were asked for, a {type(event).__name__} came")
            if keep is not None:
                kept.append(kept_row(event, event.also[0], keep.quality))
                clock.add("encode")
            waiting.append(event)
            if len(waiting) == self._task.batch_size:
                self._flush(waiting, rows, shard)
                waiting = []
            clock.add("teacher")
        clock.add("wait")
        if waiting:
            self._flush(waiting, rows, shard)
        clock.add("teacher")
        table = self._table(rows, failures)
        clock.add("uncertainty")
        beside = None if keep is None else kept_table(kept, failures)
        return ShardResult(table, tuple(failures), clock.seconds | {"decode": rows.decode_seconds}, beside)

    def close(self) -> None:
        del self._teacher

    def _flush(self, clips: Sequence[Clip], rows: _Rows, shard: Shard) -> None:
        started = time.perf_counter()
        # The seed is the batch's place in the plan, so that stochastic passes repeat when a shard does.
        seed = zlib.crc32(f"{shard.key}:{len(rows.clips)}".encode())
        try:
            logits_NSK = self._teacher.logits([c.frames_VTHWC for c in clips], seed=seed)
        except ModelError as e:
            keys = [(c.video_id, c.span.start_us) for c in clips]
            raise ModelError(f"{e}{which_clip(e, keys, shard)}", clip_index=e.clip_index) from e
        each_ms = (time.perf_counter() - started) * 1e3 / len(clips)
        for clip, logits_SK in zip(clips, logits_NSK, strict=True):
            span = clip.span
            rows.clips.append((clip.video_id, span.start_us, span.end_us, clip.decode_ms, bool(clip.damage)))
            rows.logits_SK.append(logits_SK)
            rows.teacher_ms.append(each_ms)

    def _table(self, rows: _Rows, failures: Sequence[Failure]) -> Any:
        dropped = {f.video_id for f in failures if not f.permanent}
        keep = [i for i, clip in enumerate(rows.clips) if clip[0] not in dropped]
        columns = list(zip(*(rows.clips[i] for i in keep), strict=True)) or [()] * 5
        keys = {n: list(c) for n, c in zip(("video_id", "start_us", "end_us"), columns, strict=False)}
        extra = {
            "decode_ms": list(columns[3]),
            "damaged": list(columns[4]),
            "teacher_ms": [rows.teacher_ms[i] for i in keep],
        }
        spec = self._task.spec
        shape = (0, spec.num_samples, spec.teacher.num_classes or 0)
        logits = np.stack([rows.logits_SK[i] for i in keep]) if keep else np.empty(shape, np.float32)
        return target_table(spec, keys, logits, extra)


def which_clip(error: ModelError, keys: Sequence[tuple[str, int]], shard: Shard) -> str:
    """Says of which clip an error is, and what can be done; ``keys`` are video and start of each of the batch."""
    if error.clip_index is None:
        return ""
    video_id, start_us = keys[error.clip_index]
    uri = next((v.uri for v in shard.videos if v.video_id == video_id), video_id)
    return (
        f". It is the clip at {start_us / US:g} s of {uri}. Nothing of its shard was written; if the model "
        f"is right otherwise, `locum prune STORE --uri {uri}` takes the video out"
    )
