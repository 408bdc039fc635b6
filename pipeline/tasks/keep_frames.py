"""KeepFramesTask: keep a small view of every clip. No model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.frames import Clip, FrameRequest, FrameSource, StreamFrames, VideoEnd
from pipeline.sheets import encode_sheet
from schemas.frames import FRAMES_SCHEMA, FrameSpec
from schemas.shard import Failure, Shard, ShardResult

KeptRow = tuple[str, int, int, bytes, bool]
"""video_id, start_us, end_us, sheet, damaged."""


@dataclass(frozen=True)
class KeepFramesTask:
    """``spec`` says which frames, and how they are kept."""

    spec: FrameSpec

    @property
    def request(self) -> FrameRequest:
        return FrameRequest(self.spec.clip, self.spec.view, self.spec.decode)

    def on(self, *, gpu: bool, num_threads: int) -> KeepFramesTask:
        return self

    def start(self) -> KeepFramesRun:
        return KeepFramesRun(self)


class KeepFramesRun:
    """Collects sheets; holds nothing between shards."""

    def __init__(self, task: KeepFramesTask) -> None:
        self._task = task

    def wanted(self, shard: Shard) -> Shard:
        return shard

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        rows: list[KeptRow] = []
        failures: list[Failure] = []
        decode_ms = encode_seconds = 0.0
        started = time.perf_counter()
        for event in frames.stream(shard, self._task.request):
            if isinstance(event, VideoEnd):
                if event.failure is not None:
                    failures.append(event.failure)
                continue
            if not isinstance(event, Clip):
                raise TypeError(f"frames were asked for, a {type(event).__name__} came")
            began = time.perf_counter()
            rows.append(kept_row(event, event, self._task.spec.quality))
            encode_seconds += time.perf_counter() - began
            decode_ms += event.decode_ms
        table = kept_table(rows, failures)
        wait = time.perf_counter() - started - encode_seconds
        seconds = {"wait": wait, "encode": encode_seconds, "decode": decode_ms / 1e3}
        return ShardResult(table, tuple(failures), seconds)

    def close(self) -> None:
        """Nothing is held."""


def kept_row(clip: Clip, kept: Clip | StreamFrames, quality: int) -> KeptRow:
    """The row of a clip of which ``kept`` is kept: its own frames, or those of a further stream."""
    span, sheet = clip.span, encode_sheet(kept.frames_VTHWC[0], quality)
    return clip.video_id, span.start_us, span.end_us, sheet, bool(kept.damage)


def kept_table(rows: Sequence[KeptRow], failures: Sequence[Failure]) -> pa.Table:
    """The rows as a table, without those of videos that failed for now."""
    dropped = {f.video_id for f in failures if not f.permanent}
    columns = list(zip(*(row for row in rows if row[0] not in dropped), strict=True)) or [()] * 5
    arrays = [pa.array(c, f.type) for c, f in zip(columns, FRAMES_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=FRAMES_SCHEMA)
