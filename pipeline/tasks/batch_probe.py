"""How many clips to a batch: measured in seconds, where and as the teacher will run.

Which kernels a library picks depends on the batch, on CPUs as on GPUs, so the best one cannot be told from the network:
a small 3D network on one core took 22 ms a clip in batches of 8 to 12 and 14 ms from 16 on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.models.teacher import Teacher
from pipeline.tasks.teach import DEFAULT_BATCH, TeachTask
from schemas.errors import ModelError
from schemas.targets import TargetSpec

log = logging.getLogger("locum.teach")

BUDGET_SECONDS = 8.0
_GAIN = 1.05
_REPEATS = 3
_MOST_CPU, _MOST_CUDA = 32, 512
_CPU_INPUT_BYTES, _CUDA_INPUT_BYTES = 128 << 20, 2 << 30


def best_batch(
    seconds_of: Callable[[int], float | None],
    most: int,
    budget_seconds: float = BUDGET_SECONDS,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """The smallest batch within 5 % of the least seconds a clip, of 8, 16, 32, … up to ``most``.

    ``seconds_of`` measures a batch, None where it cannot be run. No more are tried when two doublings in a row gained
    nothing, or when the next is not likely to end within the budget.
    """
    ends = now() + budget_seconds
    each: dict[int, float] = {}
    size = DEFAULT_BATCH
    while size <= most:
        started = now()
        seconds = seconds_of(size)
        if seconds is None:
            break
        each[size] = seconds / size
        if size >= 4 * _smallest_good(each) or now() + 2 * (now() - started) > ends:
            break
        size *= 2
    return _smallest_good(each) if each else DEFAULT_BATCH


def _smallest_good(each: dict[int, float]) -> int:
    least = min(each.values())
    return min(size for size, seconds in each.items() if seconds <= _GAIN * least)


def probe_batch(task: TeachTask, budget_seconds: float = BUDGET_SECONDS) -> int:
    """The best batch for the teacher of a task, in this process and on random frames.

    The default where one batch of it would take too long to repeat: then the batch matters least. torch's threads are
    left as they were.

    Raises
    ------
    ModelError
        If the teacher cannot be built here.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        return _probe(task, budget_seconds)
    finally:
        torch.set_num_threads(threads)


def _probe(task: TeachTask, budget_seconds: float) -> int:
    started = time.monotonic()
    teacher = replace(task, batch_size=1, compile=False).teacher()
    cuda = teacher.device.type == "cuda"
    most = _most(task.spec, cuda)
    frames_NVTHWC = _random_frames(task.spec, most)

    def seconds_of(size: int) -> float | None:
        teacher.batch_size = size
        times = []
        for _ in range(1 + _REPEATS):
            began = time.perf_counter()
            try:
                teacher.logits(frames_NVTHWC[:size])
            except ModelError:
                return None
            times.append(time.perf_counter() - began)
            if teacher.batch_size < size:  # it did not fit in memory
                return None
        return min(times[1:])

    first = _seconds_of_one(teacher, frames_NVTHWC)
    if first is None or first * DEFAULT_BATCH * (1 + _REPEATS) > budget_seconds:
        return min(DEFAULT_BATCH, most)
    batch = best_batch(seconds_of, most, budget_seconds)
    log.info("batches of %d clips, found in %.1f s", batch, time.monotonic() - started)
    return batch


def _seconds_of_one(teacher: Teacher, frames_NVTHWC: np.ndarray) -> float | None:
    """Of a second run of one clip: the first loads kernels."""
    try:
        teacher.logits(frames_NVTHWC[:1])
        began = time.perf_counter()
        teacher.logits(frames_NVTHWC[:1])
    except ModelError:
        return None
    return time.perf_counter() - began


def _most(spec: TargetSpec, cuda: bool) -> int:
    """The largest batch worth trying: its float input has to be small against the memory that there is."""
    view = spec.view
    clip_bytes = 4 * 3 * view.num_views * spec.clip.num_frames * view.height * view.width
    room = (_CUDA_INPUT_BYTES if cuda else _CPU_INPUT_BYTES) // clip_bytes
    return max(1, min(_MOST_CUDA if cuda else _MOST_CPU, room))


def _random_frames(spec: TargetSpec, num: int) -> np.ndarray:
    view = spec.view
    shape = (num, view.num_views, spec.clip.num_frames, view.height, view.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
