"""A teacher for a small set that has none: probes over features of an image network, nested, so that no clip's target
comes from a probe that saw its group, nor one that saw the fold on which students are judged.

Features are a target store like any other, whose "logits" are means and deviations over time of what EfficientNet-Lite0
says of the frames (`build`). For each outer fold, `nested_logits` gives all clips their logits; `write_targets` makes a
target store of them, with the features' videos and clips.

Shape suffixes: N clips, C channels, T frames, F features, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.planning import add_videos
from jobs.teach import open_targets
from pipeline.distill.splits import folds
from pipeline.frames import FrameSource, NoFrames
from pipeline.known import videos_in_force
from pipeline.local_runner import LocalRunner
from pipeline.models.frame_student import build as image_network
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.targets_table import target_table
from schemas.arrays import U64
from schemas.clip import clip_spans
from schemas.shard import Shard, ShardResult
from schemas.targets import TargetSpec

Floats = NDArray[np.float64]
Key = tuple[str, int]
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Of the squared weights, beside the mean cross-entropy of standardised features."""


class Features(torch.nn.Module):
    """Float clips (N, 3, T, H, W) to means and deviations over time of an image network's features, (N, 2 B)."""

    def __init__(self, images: torch.nn.Module) -> None:
        super().__init__()
        self.images = images

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        n, _, t = x_NCTHW.shape[:3]
        seen_NTB = self.images(x_NCTHW.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, t))
        return torch.cat([seen_NTB.mean(1), seen_NTB.std(1, correction=0)], dim=1)


def build() -> Features:
    """The factory of the features' "teacher"."""
    return Features(image_network(2, "efficientnet-lite0").images).eval()


class Span:
    """Clips in the space that they span, in which a penalised probe of them lies: found once for all penalties."""

    def __init__(self, x_NF: Floats, y_N: NDArray[np.int64], num_classes: int) -> None:
        self._span_RF = np.linalg.svd(x_NF, full_matrices=False)[2]
        self._x, self._y = torch.from_numpy(x_NF @ self._span_RF.T), torch.from_numpy(y_N)
        self._num_classes = num_classes

    def fit(self, penalty: float) -> torch.nn.Linear:
        """Multinomial logistic regression, its squared weights penalised."""
        x, y = self._x, self._y
        probe = torch.nn.Linear(x.shape[1], self._num_classes, dtype=torch.float64)
        torch.nn.init.zeros_(probe.weight)
        torch.nn.init.zeros_(probe.bias)
        optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(probe(x), y) + penalty * probe.weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)
        found = torch.nn.Linear(self._span_RF.shape[1], self._num_classes, dtype=torch.float64)
        found.requires_grad_(False)
        found.weight.copy_(probe.weight.detach() @ torch.from_numpy(self._span_RF))
        found.bias.copy_(probe.bias.detach())
        return found


def probed(
    x_NF: Floats, y_N: NDArray[np.int64], group_N: U64, train_N: NDArray[np.bool_], num_classes: int
) -> Floats:
    """Logits (N, K) of all clips, by a probe fitted on ``train_N``; the penalty is chosen there, over groups."""
    x_NF = (x_NF - x_NF[train_N].mean(0)) / (x_NF[train_N].std(0) + 1e-6)
    inner_N = folds(group_N, 4, seed=7)
    losses = np.zeros(len(PENALTIES))
    for k in range(4):
        fit_N, held_N = train_N & (inner_N != k), train_N & (inner_N == k)
        if held_N.any():
            span = Span(x_NF[fit_N], y_N[fit_N], num_classes)
            held, truth = torch.from_numpy(x_NF[held_N]), torch.from_numpy(y_N[held_N])
            for at, penalty in enumerate(PENALTIES):
                logits = span.fit(penalty)(held)
                losses[at] += float(torch.nn.functional.cross_entropy(logits, truth, reduction="sum"))
    best = PENALTIES[int(np.argmin(losses))]
    probe = Span(x_NF[train_N], y_N[train_N], num_classes).fit(best)
    return np.asarray(probe(torch.from_numpy(x_NF)).numpy())


def nested_logits(
    x_NF: Floats, y_N: NDArray[np.int64], group_N: U64, outer_N: NDArray[np.integer], num_classes: int
) -> dict[int, Floats]:
    """Logits (N, K) of all clips by the teacher of each outer fold: by probes that saw neither a clip, nor its group,
    nor the fold. ``outer_N`` is the fold of each clip, and no group is in two."""
    numbers = np.unique(outer_N).tolist()
    found = {}
    for fold in numbers:
        found[fold] = probed(x_NF, y_N, group_N, outer_N != fold, num_classes)
    for first, second in combinations(numbers, 2):  # who saw neither serves both
        train_N = (outer_N != first) & (outer_N != second)
        said_NK = probed(x_NF, y_N, group_N, train_N, num_classes)
        found[first][outer_N == second] = said_NK[outer_N == second]
        found[second][outer_N == first] = said_NK[outer_N == first]
    return found


def held_out_logits(
    x_NF: Floats,
    y_N: NDArray[np.int64],
    group_N: U64,
    test_N: NDArray[np.bool_],
    num_folds: int,
    num_classes: int,
) -> Floats:
    """Logits (N, K) of all clips by a teacher that saw none of ``test_N``: of these by a probe that saw all others, of
    the others by probes that did not see their fold."""
    out_NK = probed(x_NF, y_N, group_N, ~test_N, num_classes)
    inner_N = np.full(len(y_N), -1)
    inner_N[~test_N] = folds(group_N[~test_N], num_folds)
    for fold in range(num_folds):
        mine_N = inner_N == fold
        out_NK[mine_N] = probed(x_NF, y_N, group_N, ~test_N & ~mine_N, num_classes)[mine_N]
    return out_NK


@dataclass(frozen=True)
class GivenLogits:
    """A task that runs no model: the rows of each clip from logits that are known."""

    spec: TargetSpec
    logits: Mapping[Key, Any]

    @property
    def request(self) -> None:
        return None

    def on(self, *, gpu: bool, num_threads: int) -> GivenLogits:
        return self

    def start(self) -> GivenLogits:
        return self

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        keys: dict[str, list[Any]] = {"video_id": [], "start_us": [], "end_us": []}
        for video in shard.videos:
            for span in clip_spans(video.start_us, video.end_us, self.spec.clip):
                keys["video_id"].append(video.video_id)
                keys["start_us"].append(span.start_us)
                keys["end_us"].append(span.end_us)
        pairs = list(zip(keys["video_id"], keys["start_us"], strict=True))
        logits_NSK = np.stack([self.logits[pair] for pair in pairs])[:, None].astype(np.float32)
        none = [0.0] * len(pairs)
        extra = {"decode_ms": none, "teacher_ms": none, "damaged": [False] * len(pairs)}
        return ShardResult(target_table(self.spec, keys, logits_NSK, extra))

    def close(self) -> None:
        """Nothing is held."""


def write_targets(features: ShardStore, out: str, spec: TargetSpec, logits: Mapping[Key, Any]) -> ShardStore:
    """A target store of ``spec`` under ``out`` with these logits, of the videos and clips of ``features``."""
    store = open_targets(out, "targets", spec)
    add_videos(store, videos_in_force(features), spec.clip, notes={"source": features.url})
    LocalRunner(NoFrames).run(GivenLogits(spec, logits), store)
    return store
