"""A second student from the cache, and with the teacher in the loop: what each costs, and how near to the teacher it
comes on videos that none of them saw.

Arms share weights, order, augmentation and steps. The teacher in the loop is asked about the clips of the cache, or
about windows that begin anywhere; a cache of overlapping clips, one of each stretch shown in each epoch, is what comes
nearest to the latter. What is averaged over seeds first is a clip's own number, so that the bootstrap sees the spread
between videos; that between seeds is printed beside it.

Shapes: N held-out clips.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.distill_arms.compare import against_online
from bench.distill_arms.runs import training_of
from pipeline.distill.loader import Loader
from pipeline.distill.loop import OnTrainProgress
from pipeline.distill.predict import run_over
from pipeline.distill.snapshot import Snapshot
from pipeline.distill.targets import TargetReader
from pipeline.models.distilled import Trunk
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.arrays import I64, Bools
from schemas.frames import FrameSpec
from schemas.student import TrainSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """What is learnt from: rows ``train_R`` of a snapshot, by ``loader``; with ``stretch_R`` one of each stretch an
    epoch. ``before_seconds`` are spent before training can begin."""

    name: str
    loader: Loader
    snapshot: Snapshot
    frames: ShardStore
    train_R: Bools
    shift: bool = False
    stretch_R: I64 | None = None
    before_seconds: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """The clips by which every arm is judged, from the cache."""

    loader: Loader
    snapshot: Snapshot
    rows_R: Bools

    @property
    def group_N(self) -> NDArray[np.uint64]:
        return np.asarray(self.snapshot.rows_R["group"][self.rows_R])


@dataclass(frozen=True)
class Run:
    """What came of one arm with one seed. ``cpu_seconds`` are of all threads, and say what it costs whatever runs
    beside. Of each held-out clip: divergence from the teacher; whether its label was found, nan where it has none."""

    seconds: float
    cpu_seconds: float
    clips_per_second: float
    kl_N: Floats
    right_N: Floats


def train(
    arm: Arm, judged_by: HeldOut, spec: TrainSpec, work: Path, on_progress: OnTrainProgress | None = None
) -> Run:
    """Train a student, and judge it."""
    spec = spec.model_copy(update={"shift": arm.shift})
    kept = FrameSpec(**arm.frames.document.spec)
    training, model, student = training_of(
        arm.snapshot, arm.loader, kept, spec, arm.train_R, work, on_progress, arm.stretch_R
    )
    started, cpu_started = time.perf_counter(), time.process_time()
    state = training.run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    trunk = Trunk(model.eval(), student.input, has_features=False)
    at_one = TargetReader(judged_by.snapshot)
    kls, rights = [], []
    for rows, logits, _ in run_over(trunk, judged_by.loader, judged_by.rows_R, torch.device("cpu")):
        p, q = at_one.dense(rows).astype(np.float64), softmax(logits).astype(np.float64)
        tiny = np.finfo(np.float32).tiny
        kls.append((p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny)))).sum(axis=1))
        label = judged_by.snapshot.rows_R["label"][rows]
        rights.append(np.where(label < 0, np.nan, q.argmax(axis=1) == label))
    return Run(
        seconds + arm.before_seconds,
        cpu + arm.before_seconds,
        state.clips / seconds,
        np.concatenate(kls),
        np.concatenate(rights),
    )


def table(arms: Sequence[Arm], runs: Sequence[Sequence[Run]], group_N: NDArray[np.uint64]) -> list[str]:
    """A line an arm, and each arm from the cache against each with the teacher in the loop. ``runs`` has the seeds of
    each arm."""
    columns = ("seconds", "cpu_seconds", "clips_per_second")
    lines = [
        f"{'':28s} {'seconds':>9s} {'of CPU':>9s} {'clips/s':>9s} {'KL':>8s} {'accuracy':>9s}  KL of each seed"
    ]
    means = []
    for arm, of_seeds in zip(arms, runs, strict=True):
        kl_N = np.mean([r.kl_N for r in of_seeds], axis=0)
        right_N = np.mean([r.right_N for r in of_seeds], axis=0)
        seconds, cpu, rate = (float(np.median([getattr(r, n) for r in of_seeds])) for n in columns)
        means.append(replace(of_seeds[0], seconds=seconds, cpu_seconds=cpu, kl_N=kl_N, right_N=right_N))
        each, right = ", ".join(f"{r.kl_N.mean():.4f}" for r in of_seeds), np.nanmean(right_N)
        lines.append(
            f"{arm.name:28s} {seconds:9.1f} {cpu:9.1f} {rate:9.1f} {kl_N.mean():8.4f} {right:9.4f}  {each}"
        )
    for cached, of_cached in zip(arms, means, strict=True):
        for live, of_live in zip(arms, means, strict=True):
            if cached.name.startswith("cache") and live.name.startswith("online"):
                times, of_cpu = (
                    of_live.seconds / of_cached.seconds,
                    of_live.cpu_seconds / of_cached.cpu_seconds,
                )
                lines.append(
                    f"{cached.name} against {live.name}: {times:.2f} times cheaper, {of_cpu:.2f} in CPU seconds"
                )
                lines += against_online(
                    of_cached.kl_N, of_live.kl_N, of_cached.right_N, of_live.right_N, group_N
                )
    return lines
