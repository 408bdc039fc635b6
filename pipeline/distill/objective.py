"""The loss of a clip in each phase of training: `pipeline.distill.losses` put together as a `TrainSpec` says.

Shapes: N clips, K classes, J of them kept.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.distill import losses
from pipeline.distill.loader import Batch
from schemas.student import TrainSpec


def distillation_loss(logits_NK: Tensor, batch: Batch, spec: TrainSpec) -> Tensor:
    """The loss of each clip: the teacher's, and the label's where there is one; (N,).

    A student that learns from labels alone is given no clip without one.
    """
    device = logits_NK.device
    probs = torch.from_numpy(batch.probs_NK).to(device)
    if spec.multi_label:
        return losses.multi_label_kl(logits_NK, probs, spec.temperature)
    if batch.kept_NJ is None:
        taught_N = losses.kl(logits_NK, probs, spec.temperature)
    else:
        kept_NJ = torch.from_numpy(batch.kept_NJ).to(device)
        taught_N = losses.kl_of_kept(logits_NK, kept_NJ, probs, spec.temperature)
    label_N = torch.from_numpy(batch.label_N).to(device)
    named_N = label_N >= 0
    told_N = F.cross_entropy(logits_NK, label_N.clamp_min(0), reduction="none")
    w = spec.label_weight
    return torch.where(named_N, (1 - w) * taught_N + w * told_N, taught_N)


def sharpening_loss(logits_NK: Tensor, batch: Batch, spec: TrainSpec) -> Tensor:
    """The distillation loss, and that of the final phase on the label (the teacher's first class, where there is
    none)."""
    base_N = distillation_loss(logits_NK, batch, spec)
    if spec.multi_label:
        return base_N
    target_N = torch.from_numpy(np.where(batch.label_N >= 0, batch.label_N, first_of(batch)))
    target_N = target_N.to(logits_NK.device)
    return base_N + losses.sure_or_flat(logits_NK, target_N)


def first_of(batch: Batch) -> NDArray[np.int64]:
    """The teacher's first class of each clip; (N,)."""
    first_N = batch.probs_NK.argmax(axis=1)
    if batch.kept_NJ is None:
        return np.asarray(first_N)
    return np.asarray(np.take_along_axis(batch.kept_NJ, first_N[:, None], axis=1)[:, 0])
