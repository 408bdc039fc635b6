"""What things cost, as it was measured: decoding and the teacher while the targets were made, the student now.

Seconds are of the device that each ran on. Decoding and the student are those of one thread.

Shapes: N clips.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jobs.selecting.judged import StudentFolder
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.answering import as_kept
from schemas.clip import US
from schemas.errors import SettingsError
from schemas.frames import FrameSpec
from schemas.policy import CostFlags, CostSpec

_BATCH = 32
_REPEATS = 5


def costs_of(given: CostFlags, student: StudentFolder, targets: ShardStore) -> CostSpec:
    """What was given, and measured is what was not.

    Raises
    ------
    SettingsError, ModelError
        If nothing is known of what the dense teacher costs, or the student's program is wanted and cannot be run here.
    """
    said = given.model_dump(exclude_none=True)
    if not {"open", "decode", "teacher"} <= said.keys():
        said = {**_of_targets(targets), **said}
    if not (said["open"] or said["decode"] or said["teacher"]):
        raise SettingsError(
            f"{targets.url} says nothing of what decoding and the teacher took: give --costs.decode and --costs.teacher"
        )
    if "student" not in said:
        said["student"] = student_seconds(student)
    return CostSpec(**said)


def mean_costs(each: Sequence[CostSpec]) -> CostSpec:
    """Of the students of several folds: the mean of what was measured."""
    names = ("open", "decode", "student", "teacher")
    return each[0].model_copy(update={n: float(np.mean([getattr(c, n) for c in each])) for n in names})


def _of_targets(targets: ShardStore) -> dict[str, float]:
    """Seconds of decoding for each second of video in clips, opening in it, and of the teacher for each clip."""
    seconds, decode_ms, teacher_ms, clips = 0.0, 0.0, 0.0, 0
    for table in scan(targets, ["video_id", "start_us", "end_us", "decode_ms", "teacher_ms"]):
        seconds += covered_us(table) / US
        decode_ms += float(table["decode_ms"].to_numpy().sum(dtype=np.float64))
        teacher_ms += float(table["teacher_ms"].to_numpy().sum(dtype=np.float64))
        clips += table.num_rows
    return {
        "open": 0.0,
        "decode": decode_ms / 1e3 / max(seconds, 1e-9),
        "teacher": teacher_ms / 1e3 / max(clips, 1),
    }


def covered_us(table: pa.Table) -> int:
    """Microseconds of video that clips cover, those that several cover once. Rows are sorted by video and start."""
    start, end = table["start_us"].to_numpy(), table["end_us"].to_numpy()
    video = table["video_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    begin = start.copy()
    follows = np.flatnonzero(video[1:] == video[:-1]) + 1
    begin[follows] = np.maximum(begin[follows], end[follows - 1])
    return int(np.maximum(end - begin, 0).sum())


def student_seconds(student: StudentFolder) -> float:
    """Seconds of a clip in a batch, on one thread of this machine: its frames through their JPEG, and the network."""
    import torch

    from pipeline.models.exported_student import ExportedStudent

    spec = FrameSpec(**student.about["frames"]["spec"])
    rng = np.random.default_rng(0)
    shape = (_BATCH, spec.clip.num_frames, spec.view.height, spec.view.width, 3)
    frames_NTHWC = rng.integers(0, 256, shape, np.uint8)
    threads = torch.get_num_threads()
    try:
        run = ExportedStudent(f"{student.url}/student.pt2", _sha256(student), device="cpu", num_threads=1)
        run(frames_NTHWC)
        times = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            run(np.stack([as_kept(frames, spec) for frames in frames_NTHWC]))
            times.append((time.perf_counter() - began) / _BATCH)
    finally:
        torch.set_num_threads(threads)
    return min(times)


def _sha256(student: StudentFolder) -> str:
    from pipeline.models.weights import fetch

    return fetch(f"{student.url}/student.pt2").sha256
