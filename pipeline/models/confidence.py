"""Confidence heads: how likely the student, and how likely the teacher, is right about a clip.

A head is ``a * logit(p) + b + g(x)`` with p the student's largest probability, a > 0 and g a small network that
starts at zero: it begins with the ranking of max-probability and leaves it only where that pays. x are the largest
log-probabilities, in order, and (where it was fitted with them) the features of the student's trunk.

Shapes: N clips, K classes, J largest of them, F features, X = J + F inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_SORTED = 5
_HIDDEN = 16
_SMALLEST = 1e-6


class ConfidenceHead(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """One confidence, as a logit, from the student's logits and features.

    ``multi_label``: each class is a coin of its own, and its probability a sigmoid.
    """

    def __init__(self, num_classes: int, num_features: int, multi_label: bool = False) -> None:
        super().__init__()
        self._multi_label = multi_label
        self.num_sorted, self.num_features = min(MOST_SORTED, num_classes), num_features
        size = self.num_sorted + num_features
        self.log_slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean_X", torch.zeros(size))
        self.register_buffer("std_X", torch.ones(size))
        self.hidden = nn.Linear(size, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def inputs(self, logits_NK: Tensor, features_NF: Tensor | None) -> Tensor:
        """x: the largest log-probabilities, the largest first, and the features; (N, X)."""
        z_NK = logits_NK.float()
        log_probs_NK = F.logsigmoid(z_NK) if self._multi_label else F.log_softmax(z_NK, dim=1)
        sorted_NJ = log_probs_NK.topk(self.num_sorted, dim=1).values
        return sorted_NJ if features_NF is None else torch.cat([sorted_NJ, features_NF.float()], dim=1)

    def forward(self, logits_NK: Tensor, features_NF: Tensor | None) -> Tensor:
        """(N,)"""
        x_NX = self.inputs(logits_NK, features_NF)
        hidden = torch.tanh(self.hidden((x_NX - self.mean_X) / self.std_X))
        base_N = torch.exp(self.log_slope) * torch.logit(x_NX[:, 0].exp(), eps=_SMALLEST) + self.offset
        total_N: Tensor = base_N + self.out(hidden)[:, 0]
        return total_N
