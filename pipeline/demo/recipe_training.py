"""The recipe's training loop: a small network, plain AdamW, and the symmetries that motion has.

A mirrored, upturned or reversed clip shows another class that is known exactly (`motion.MIRROR_X`,
`MIRROR_Y`, `REVERSE`), so each clip stands for eight. Most epochs see pictures of half the size, which cost a
quarter; the last ones see them whole. float32 throughout: with torch 2.13 the bfloat16 gradients of these 3D
convolutions were now and then not a number on a CPU, and not faster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pipeline.demo.motion import CLASSES, MIRROR_X, MIRROR_Y, REVERSE
from pipeline.demo.recipe_clips import ClipSet
from schemas.model import InputSpec

INPUT = InputSpec(mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
"""What the network is fed: NCTHW, (frames / 255 - mean) / std."""

FrameOrder = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Changes which frames a batch (N, T, H, W, 3) shows; for baselines."""


def fit(
    model: nn.Module,
    clips: ClipSet,
    *,
    coarse_epochs: int,
    epochs: int,
    seed: int,
    batch_size: int = 32,
    peak_rate: float = 6e-3,
    order: FrameOrder | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train ``model`` in place: ``coarse_epochs`` on halved pictures, then ``epochs`` on whole ones.

    Every random choice follows from ``seed``; another number of threads may round otherwise.

    Raises
    ------
    ValueError
        If there are fewer clips than a batch holds.
    ArithmeticError
        If the loss is no longer finite.
    """
    if len(clips.labels_N) < batch_size:
        raise ValueError(
            f"training needs at least one batch of {batch_size} clips, got {len(clips.labels_N)}"
        )
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    steps, total_epochs = len(clips.labels_N) // batch_size, coarse_epochs + epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_rate, total_steps=total_epochs * steps, pct_start=0.1
    )
    model.train()
    coarse_NTHWC = halved(clips.frames_NTHWC) if coarse_epochs else clips.frames_NTHWC
    for epoch in range(total_epochs):
        began, total = time.monotonic(), 0.0
        pool_NTHWC = coarse_NTHWC if epoch < coarse_epochs else clips.frames_NTHWC
        for rows_N in np.split(rng.permutation(len(clips.labels_N))[: steps * batch_size], steps):
            frames, labels = augment(pool_NTHWC[rows_N], clips.labels_N[rows_N], rng)
            x = to_input(frames if order is None else order(frames, rng))
            loss = functional.cross_entropy(model(x), torch.from_numpy(labels))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise ArithmeticError(f"the loss of epoch {epoch + 1} is {total}")
        say(f"epoch {epoch + 1}/{total_epochs}: loss {total / steps:.3f}, {time.monotonic() - began:.0f} s")


def logits_NK(model: nn.Module, clips: ClipSet, order: FrameOrder | None = None, seed: int = 0) -> np.ndarray:
    """float32 logits (N, K) of all clips, in evaluation mode."""
    rng = np.random.default_rng(seed)
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(clips.labels_N), 32):
            frames = clips.frames_NTHWC[start : start + 32]
            parts.append(model(to_input(frames if order is None else order(frames, rng))).float().numpy())
    return np.concatenate(parts)


def measure(logits_NK: np.ndarray, clips: ClipSet) -> dict[str, float | int]:
    """Accuracy of clips, and of videos by the mean of their clips' softmax."""
    shifted = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    probabilities_NK = shifted / shifted.sum(1, keepdims=True)
    videos, first_V, which_N = np.unique(clips.videos_N, return_index=True, return_inverse=True)
    sums_VK = np.zeros((len(videos), logits_NK.shape[1]))
    np.add.at(sums_VK, which_N, probabilities_NK)
    right_V = sums_VK.argmax(1) == clips.labels_N[first_V]
    return {
        "videos": len(videos),
        "clips": len(clips.labels_N),
        "video_accuracy": round(float(right_V.mean()), 4),
        "clip_accuracy": round(float((logits_NK.argmax(1) == clips.labels_N).mean()), 4),
    }


def augment(
    frames_NTHWC: np.ndarray, labels_N: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, upturn and reverse clips at random, with the class that results; shift the batch, swap colours."""
    frames_NTHWC, labels_N = frames_NTHWC.copy(), labels_N.astype(np.int64)
    for swap, axis in ((_CLASS_MIRROR_X, 3), (_CLASS_MIRROR_Y, 2), (_CLASS_REVERSE, 1)):
        chosen_N = rng.random(len(labels_N)) < 0.5
        frames_NTHWC[chosen_N] = np.flip(frames_NTHWC[chosen_N], axis)
        labels_N[chosen_N] = swap[labels_N[chosen_N]]
    reach = frames_NTHWC.shape[2] // 12
    shift = rng.integers(-reach, reach + 1, 2)
    return np.roll(frames_NTHWC, shift, (2, 3))[..., rng.permutation(3)], labels_N


def halved(frames_NTHWC: np.ndarray) -> np.ndarray:
    """The frames at half their width and height (which must be even), by the mean of each 2 x 2 pixels."""
    n, t, h, w, c = frames_NTHWC.shape
    half = np.empty((n, t, h // 2, w // 2, c), np.uint8)
    for clip, small in zip(frames_NTHWC, half, strict=True):
        small[:] = clip.reshape(t, h // 2, 2, w // 2, 2, c).sum((2, 4), dtype=np.uint16) // 4
    return half


def to_input(frames_NTHWC: np.ndarray) -> torch.Tensor:
    """The network's float32 input (N, C, T, H, W)."""
    x = torch.from_numpy(np.ascontiguousarray(frames_NTHWC)).permute(0, 4, 1, 2, 3).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (INPUT.mean, INPUT.std))
    return x.div_(INPUT.scale).sub_(mean).div_(std)


def one_frame(frames_NTHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each clip shows one of its frames all the time: what can be told without motion."""
    chosen_N = rng.integers(0, frames_NTHWC.shape[1], len(frames_NTHWC))
    still_NHWC = frames_NTHWC[np.arange(len(chosen_N)), chosen_N]
    return np.repeat(still_NHWC[:, None], frames_NTHWC.shape[1], axis=1)


def shuffled(frames_NTHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each clip shows its frames in random order."""
    return np.stack([clip[rng.permutation(len(clip))] for clip in frames_NTHWC])


def _numbers(swap: Mapping[str, str]) -> np.ndarray:
    return np.array([CLASSES.index(swap.get(name, name)) for name in CLASSES])


_CLASS_MIRROR_X, _CLASS_MIRROR_Y, _CLASS_REVERSE = _numbers(MIRROR_X), _numbers(MIRROR_Y), _numbers(REVERSE)
