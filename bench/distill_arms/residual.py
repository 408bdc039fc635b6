"""What a cache cannot give: how far the pooled target of a shifted window is from what the teacher says of that very
window, asked online on a sample. Beside it the two that one could take instead: the target of the clip in which most of
the window lies, and none at all (the mean of all targets)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.distill_arms.online import OnlineLoader
from pipeline import metrics
from pipeline.distill.snapshot import Snapshot
from pipeline.distill.targets import TargetReader
from pipeline.distill.windows import joined_to_next, shifted

Floats = NDArray[np.float64]
_BATCH = 16


def kl(p_NK: Floats, q_NK: Floats) -> Floats:
    """Divergence of each q from its p, in nats; (N,)."""
    tiny = np.finfo(np.float32).tiny
    return np.asarray((p_NK * (np.log(np.maximum(p_NK, tiny)) - np.log(np.maximum(q_NK, tiny)))).sum(axis=1))


def residual(
    snapshot: Snapshot, online: OnlineLoader, length_us: int, num_windows: int, seed: int = 0
) -> list[str]:
    """The table of a sample of windows, by how much of the next clip they hold."""
    rows_R, t = snapshot.rows_R, snapshot.num_frames
    rng, reader = np.random.default_rng(seed), TargetReader(snapshot)
    can = np.flatnonzero(joined_to_next(rows_R, snapshot.usable_R, length_us))
    rows_N = np.sort(rng.choice(can, min(num_windows, len(can)), replace=False))
    offset_N = rng.integers(1, t, len(rows_N))
    asked_NK = np.concatenate(
        [
            online.look_up(rows_N[i : i + _BATCH], offset_N[i : i + _BATCH]).probs_NK
            for i in range(0, len(rows_N), _BATCH)
        ]
    ).astype(np.float64)
    first_NK, next_NK = reader.dense(rows_N), reader.dense(rows_N + 1)
    nearest_NK = np.where((2 * offset_N < t)[:, None], first_NK, next_NK)
    every_NK = np.repeat(reader.dense(np.flatnonzero(snapshot.usable_R)).mean(axis=0)[None], len(rows_N), 0)
    targets = {
        "pooled, by overlap": shifted(first_NK, next_NK, offset_N, t),
        "of the nearer clip": nearest_NK,
        "the mean of all": every_NK,
    }
    lines = [f"{len(rows_N)} windows; of what the teacher says of the window itself:"]
    lines.append(
        f"  {'target':22s} {'KL':>7s}  {'95 %':>16s}  same first class   KL by frames of the next clip"
    )
    for name, q_NK in targets.items():
        kl_N = kl(asked_NK, q_NK.astype(np.float64))
        draws = metrics.bootstrap(
            lambda at, k=kl_N: float(k[at].mean()),
            rows_R["group"][rows_N],
            num_draws=1000,  # type: ignore[misc]
        )
        low, high = metrics.interval(draws)
        same = float((asked_NK.argmax(1) == q_NK.argmax(1)).mean())
        by = " ".join(f"{kl_N[offset_N == o].mean():.2f}" for o in range(1, t))
        lines.append(f"  {name:22s} {kl_N.mean():7.3f}  [{low:6.3f}, {high:6.3f}]  {same:16.3f}   {by}")
    return lines
