"""ProbeTask: what each file is, and which bytes it holds. One row of `PROBE_SCHEMA` a file."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from pipeline.frames import FrameSource, Probed, ProbeRequest, VideoEnd
from schemas.shard import Shard, ShardResult
from schemas.video import PROBE_SCHEMA


@dataclass(frozen=True)
class ProbeTask:
    """Probe files, several at a time."""

    num_threads: int = 4

    @property
    def request(self) -> ProbeRequest:
        return ProbeRequest(self.num_threads)

    def on(self, *, gpu: bool, num_threads: int) -> ProbeTask:
        return self

    def start(self) -> ProbeRun:
        return ProbeRun(self.request)


class ProbeRun:
    """Collects rows; holds nothing."""

    def __init__(self, request: ProbeRequest) -> None:
        self._request = request

    def wanted(self, shard: Shard) -> Shard:
        return shard

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        started = time.perf_counter()
        rows, failures = [], []
        for event in frames.stream(shard, self._request):
            if isinstance(event, Probed):
                rows.append(event.row)
            elif isinstance(event, VideoEnd) and event.failure is not None:
                failures.append(event.failure)
        table = pa.Table.from_pylist(rows, PROBE_SCHEMA)
        return ShardResult(table, tuple(failures), {"probe": time.perf_counter() - started})

    def close(self) -> None:
        """Nothing is held."""
