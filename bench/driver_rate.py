"""How many shards a second the driver of a run on Ray sustains: real workers whose task is to do nothing.

    python -m bench.driver_rate [--workers 2 16 64] [--shards 3000] [--seconds 0]

A thousand workers that take a minute a shard ask for 17 shards a second. Workers write real data files into a store on
this machine's disk; ``--seconds`` is what each shard takes beside. *Driver* is processor time of the driver's process a
shard, without that of Ray's own daemons.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from cluster.runner import RayRunner
from cluster.sizing import Node, Shape, Size
from pipeline.frames import FrameSource
from pipeline.runner import Progress
from pipeline.store.kinds import TARGETS
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from schemas.clip import ClipSpec, clip_spans
from schemas.cluster import RayOptions
from schemas.model import ModelRef
from schemas.shard import Shard, ShardResult
from schemas.targets import UNCERTAINTY_COLUMNS, TargetSpec, target_schema

CLASSES, CLIPS_A_VIDEO, VIDEOS_A_SHARD = 400, 4, 4
CLIP = ClipSpec(num_frames=2, seconds=1.0)
BUSY_SHARDS_A_SECOND = 1000 / 60


@dataclass(frozen=True)
class Nothing:
    """A task that opens no video: every clip's logits are zero."""

    seconds: float = 0.0
    request: None = None

    def on(self, *, gpu: bool, num_threads: int) -> Self:
        return self

    def start(self) -> Self:
        return self

    def wanted(self, shard: Shard) -> Shard:
        return shard

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        time.sleep(self.seconds)
        spans = [(v.video_id, s) for v in shard.videos for s in clip_spans(v.start_us, v.end_us, CLIP)]
        floats = np.zeros(len(spans), np.float32)
        logits = pa.FixedSizeListArray.from_arrays(np.zeros(len(spans) * CLASSES, np.float16), CLASSES)
        columns = {
            "video_id": [v for v, _ in spans],
            "start_us": [s.start_us for _, s in spans],
            "end_us": [s.end_us for _, s in spans],
            "logits": logits,
            "top1": np.zeros(len(spans), np.int32),
            "damaged": np.zeros(len(spans), bool),
            **dict.fromkeys((*UNCERTAINTY_COLUMNS, "decode_ms", "teacher_ms"), floats),
        }
        schema = target_schema(CLASSES, dtype="float16")
        return ShardResult(
            pa.table({n: columns[n] for n in schema.names}, schema=schema), (), {"teacher": 0.0}
        )

    def close(self) -> None:
        pass


class _Runner(RayRunner):
    """Workers without decode actors, as many as are asked for."""

    def __init__(self, workers: int) -> None:
        super().__init__(RayOptions(ray="local"))
        self._workers = workers

    def _size(self, nodes: list[Node], *, decodes: bool) -> Size:
        return Size(Shape(0.0, 0.001, 0, 0.0), self._workers, self._workers, spreads=False)


def planned(folder: str, shards: int) -> ShardStore:
    """A store in which so many shards are pending."""
    teacher = ModelRef(factory="teachers:none", num_classes=CLASSES, weights_sha256="0" * 64, code="0" * 32)
    spec = TargetSpec(teacher=teacher, clip=CLIP).model_dump(mode="json")
    store = ShardStore.create(folder, kind=TARGETS, name="t", fingerprint="0" * 32, spec=spec)

    def batches() -> Iterator[pa.RecordBatch]:
        for shard in range(shards):
            rows = []
            for n in range(VIDEOS_A_SHARD):
                name = f"{shard * VIDEOS_A_SHARD + n:032x}"
                row = dict.fromkeys(TARGETS.plan_schema.names) | {"video_id": name, "file_id": name}
                row |= {"uris": [f"/v/{name}.mp4"], "duration_us": CLIPS_A_VIDEO * 1_000_000, "num_bytes": 1}
                row |= {"width": 1, "height": 1, "fps": 25.0, "codec": "h264", "container": "mp4"}
                rows.append(row | {"clips": CLIPS_A_VIDEO, "shard": shard})
            yield pa.RecordBatch.from_pylist(rows, TARGETS.plan_schema)

    store.add_plan(batches())
    return store


def measure(workers: int, shards: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = planned(folder, shards)
        seen: list[tuple[float, float, int]] = []

        def note(p: Progress) -> None:
            seen.append((time.monotonic(), time.process_time(), p.shards_done))

        with _Runner(workers) as runner:
            summary = runner.run(Nothing(seconds), store, on_progress=note)
        if not verify(store).clean or summary.shards != shards:
            raise ValueError(f"{summary.shards} of {shards} shards are there")
        first = next(s for s in seen if s[2] > shards // 10)
        last = next(s for s in seen if s[2] >= shards * 9 // 10)
        done = last[2] - first[2]
        rate, driver = done / (last[0] - first[0]), (last[1] - first[1]) / done
        print(
            f"{workers:7d} {shards:7d} {rate:10.1f} {rate / BUSY_SHARDS_A_SECOND:8.1f} {driver * 1e3:10.2f} "
            f"{driver * BUSY_SHARDS_A_SECOND:8.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16, 64])
    parser.add_argument("--shards", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=0.0)
    args = parser.parse_args()
    print("workers  shards   shards/s  of 16.7  driver ms  of a core at 16.7/s")
    for workers in args.workers:
        measure(workers, args.shards, args.seconds)


if __name__ == "__main__":
    main()
