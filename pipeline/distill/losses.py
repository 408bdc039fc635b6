"""What a student is punished for. Pure tensor arithmetic: every loss is one number a clip, (N,), for the training loop
to weight and average.

Shapes: N clips, K classes, J of them kept. Targets are probabilities: those of cached logits at the
temperature of the loss, or pooled from several.

Sources: temperature-scaled distillation, Hinton et al. 2015 (arXiv 1503.02531), whose factor T**2 keeps the size of
the gradient the same at every T; label smoothing towards the uniform, Szegedy et al. 2016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST = torch.finfo(torch.float32).tiny


def kl(logits_NK: Tensor, target_NK: Tensor, temperature: float = 1.0) -> Tensor:
    """T**2 KL(target || softmax(logits / T)), nats; (N,). 0 where the student says what the target says."""
    log_q_NK = F.log_softmax(logits_NK.float() / temperature, dim=1)
    return temperature**2 * _kl(target_NK.float(), log_q_NK)


def kl_of_kept(logits_NK: Tensor, kept_NJ: Tensor, target_NJ: Tensor, temperature: float = 1.0) -> Tensor:
    """`kl` where of the target only J classes are known: J + 1 buckets, the last for all other classes; (N,).

    ``kept_NJ`` holds the classes (int64, none twice in a row) and ``target_NJ`` their probabilities, which come to 1 or
    less. Merging buckets never makes a divergence larger, so this is at most the dense one.
    """
    log_q_NK = F.log_softmax(logits_NK.float() / temperature, dim=1)
    log_q_NJ = log_q_NK.gather(1, kept_NJ)
    others_NK = log_q_NK.scatter(1, kept_NJ, -math.inf)
    rest_q_N = torch.logsumexp(others_NK, dim=1, keepdim=True)
    rest_q_N = rest_q_N.clamp_min(
        math.log(_SMALLEST)
    )  # -inf where all classes are kept; then the target's is 0
    target_NJ = target_NJ.float()
    rest_p_N = (1.0 - target_NJ.sum(dim=1, keepdim=True)).clamp_min(0.0)
    return temperature**2 * _kl(torch.cat([target_NJ, rest_p_N], 1), torch.cat([log_q_NJ, rest_q_N], 1))


def multi_label_kl(logits_NK: Tensor, target_NK: Tensor, temperature: float = 1.0) -> Tensor:
    """T**2 times the mean over classes of KL(target || sigmoid(logits / T)), each class a coin of its own; (N,)."""
    z_NK, p_NK = logits_NK.float() / temperature, target_NK.float()
    cross_NK = F.binary_cross_entropy_with_logits(z_NK, p_NK, reduction="none")
    entropy_NK = -(torch.xlogy(p_NK, p_NK) + torch.xlogy(1 - p_NK, 1 - p_NK))
    return temperature**2 * (cross_NK - entropy_NK).mean(dim=1)


def confidence(confidence_N: Tensor, right_N: Tensor) -> Tensor:
    """Cross-entropy of a confidence head, given as a logit, and whether (or how surely, 0 to 1) it is right; (N,)."""
    return F.binary_cross_entropy_with_logits(confidence_N.float(), right_N.float(), reduction="none")


def sure_or_flat(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Confident where the student is right, flat where it is wrong; (N,).

    -ln of the true class's probability where that class is the student's first, else KL(uniform || student).
    """
    log_q_NK = F.log_softmax(logits_NK.float(), dim=1)
    sure_N = -log_q_NK.gather(1, label_N[:, None])[:, 0]
    flat_N = -log_q_NK.mean(dim=1) - math.log(log_q_NK.shape[1])
    return torch.where(log_q_NK.argmax(dim=1) == label_N, sure_N, flat_N)


def _kl(p_NK: Tensor, log_q_NK: Tensor) -> Tensor:
    """KL(p || q) over the last axis; (N,). 0 ln 0 is 0, whatever q says there."""
    cross_NK = torch.where(p_NK > 0, p_NK * log_q_NK, torch.zeros_like(p_NK))
    return (torch.xlogy(p_NK, p_NK) - cross_NK).sum(dim=1)
