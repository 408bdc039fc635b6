"""What kept frames are worth while training: the same batches from the cache and from the videos, with a student that
learns from them and with nobody there."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from bench.distill_arms.runs import training_of
from pipeline.distill.loader import Augmentation, Loader
from pipeline.distill.snapshot import Snapshot
from schemas.frames import FrameSpec
from schemas.student import TrainSpec

ROUNDS = 5


def reading(
    snapshot: Snapshot, loaders: dict[str, Loader], kept: FrameSpec, spec: TrainSpec, clips: int, work: Path
) -> list[str]:
    """The table: medians of rounds in which the loaders take turns, each a whole epoch over ``clips`` clips."""
    chosen_R = np.zeros(len(snapshot.rows_R), np.bool_)
    usable = np.flatnonzero(snapshot.usable_R)
    chosen_R[np.random.default_rng(0).choice(usable, min(clips, len(usable)), replace=False)] = True
    seen: dict[tuple[str, str], list[float]] = {}
    for step in range(ROUNDS):
        for name, loader in loaders.items():
            seen.setdefault((name, "read"), []).append(_read(loader, chosen_R, spec, step))
            seen.setdefault((name, "trained"), []).append(
                _trained(snapshot, loader, kept, spec, chosen_R, work / f"{name}-{step}")
            )
    size = snapshot.blocks_B["bytes"].sum() / snapshot.blocks_B["rows"].sum()
    lines = [f"{size:.0f} bytes a clip; clips/s of an epoch over {chosen_R.sum()} clips, {ROUNDS} rounds:"]
    lines.append(f"  {'':14s} {'read only':>10s} {'training':>10s}")
    for name in loaders:
        read, trained = (statistics.median(seen[name, what]) for what in ("read", "trained"))
        lines.append(f"  {name:14s} {read:10.1f} {trained:10.1f}")
    first, second = loaders
    ratios = [
        statistics.median(np.divide(seen[first, what], seen[second, what])) for what in ("read", "trained")
    ]
    lines.append(f"  {'ratio':14s} {ratios[0]:10.2f} {ratios[1]:10.2f}")
    return lines


def _read(loader: Loader, chosen_R: np.ndarray, spec: TrainSpec, epoch: int) -> float:
    """Clips a second when nothing is done with them."""
    started, clips = time.perf_counter(), 0
    augment = Augmentation(spec.shift)
    for batch in loader.epoch(chosen_R, seed=0, epoch=epoch, batch_size=spec.batch_size, augment=augment):
        clips += len(batch.label_N)
    return clips / (time.perf_counter() - started)


def _trained(
    snapshot: Snapshot, loader: Loader, kept: FrameSpec, spec: TrainSpec, chosen_R: np.ndarray, work: Path
) -> float:
    """Clips a second of an epoch of training."""
    once = spec.model_copy(update={"epochs": 1, "final_epochs": 0})
    training, _, _ = training_of(snapshot, loader, kept, once, chosen_R, work)
    state = training.run()
    return state.clips / state.seconds
