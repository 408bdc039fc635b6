"""ProbeTask: what each file is, and which bytes it holds. One row of `PROBE_SCHEMA` a file."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.frames import FrameRequest, FrameSource
from pipeline.identity import file_id
from pipeline.video.decoder import MediaInfo
from pipeline.video.probe import probe
from schemas.errors import VideoError
from schemas.shard import Failure, Shard, ShardResult
from schemas.video import PROBE_SCHEMA, Video


@dataclass(frozen=True)
class ProbeTask:
    """Probe files, several at a time (the work is mostly waiting)."""

    num_threads: int = 4
    max_attempts: int = 3

    @property
    def request(self) -> FrameRequest | None:
        return None

    def start(self) -> ProbeRun:
        return ProbeRun(self)


class ProbeRun:
    """Holds the threads."""

    def __init__(self, task: ProbeTask) -> None:
        self._task = task
        self._pool = ThreadPoolExecutor(task.num_threads, thread_name_prefix="locum-probe")

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        started = time.perf_counter()
        answers = list(self._pool.map(self._one, shard.videos))
        rows = [a for a in answers if isinstance(a, dict)]
        failures = tuple(a for a in answers if isinstance(a, Failure))
        table = pa.Table.from_pylist(rows, PROBE_SCHEMA)
        return ShardResult(table, failures, {"probe": time.perf_counter() - started})

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _one(self, video: Video) -> dict[str, Any] | Failure:
        for attempt in range(1, self._task.max_attempts + 1):
            try:
                return probe_file(video, probe)
            except VideoError as e:
                if e.permanent or attempt == self._task.max_attempts or e.cause == "FileNotFoundError":
                    return Failure(
                        video.video_id, video.uri, e.stage, e.cause, str(e)[:500], e.permanent, attempt, 1
                    )
                time.sleep(0.2 * 2**attempt * (0.5 + random.random()))
        raise ValueError(f"max_attempts must be at least 1, got {self._task.max_attempts}")


def probe_file(video: Video, probe: Callable[[str], MediaInfo]) -> dict[str, Any]:
    """The row of one file.

    Raises
    ------
    VideoError
        If it cannot be read (not permanent) or is no video (permanent).
    """
    started = time.perf_counter()
    try:
        identity, method, size = file_id(video.uri, video.id_method)
    except Exception as e:  # whatever a storage library raises is a fault of the storage
        raise VideoError("open", f"{type(e).__name__}: {e}", permanent=False, cause=type(e).__name__) from e
    if size == 0:
        raise VideoError("open", "the file is empty", permanent=True, cause="EmptyFile")
    info = probe(video.uri)
    return {
        "item_id": video.video_id,
        "file_id": identity,
        "id_method": method,
        "num_bytes": size,
        "duration_us": info.duration_us,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps": info.fps,
        "num_frames": info.num_frames,
        "num_keyframes": info.num_keyframes,
        "codec": info.codec,
        "container": info.container,
        "has_audio": info.has_audio,
        "truncated": info.truncated,
        "probe_ms": (time.perf_counter() - started) * 1e3,
    }
