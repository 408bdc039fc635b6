"""A trained student with its confidence heads: from 8-bit frames to logits and confidences, in one module.

Shapes: N clips, T frames, H height, W width, K classes, F features.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.models.confidence import ConfidenceHead
from pipeline.models.inputs import to_input, to_logits
from schemas.model import InputSpec


class Trunk(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """The student's network, from uint8 frames (N, T, H, W, 3) to float32 logits (N, K) and features (N, F).

    With ``has_features`` the network's ``head`` takes what its ``features(x)`` gives (`pipeline.models.student` finds
    out); of any other there are none, (N, 0).
    """

    def __init__(self, net: nn.Module, spec: InputSpec, *, has_features: bool) -> None:
        super().__init__()
        self.net, self._spec, self.has_features = net, spec, has_features

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor]:
        n, t = frames_NTHWC.shape[:2]
        x = to_input(frames_NTHWC, self._spec)  # as frames lie: image networks take half as long on a CPU
        if not self.has_features:
            logits_NK = to_logits(self.net(x), n, t, self._spec)
            return logits_NK, logits_NK.new_zeros((n, 0))
        features = self.net.features(x)
        logits_NK = to_logits(self.net.head(features), n, t, self._spec)
        if self._spec.layout == "frames":
            features = features.unflatten(0, (n, t)).mean(1)
        return logits_NK, features.float()


class Student(nn.Module):  # type: ignore[misc]
    """uint8 frames (N, T, H, W, 3) to logits (N, K) and confidences (N, 2): that the student is right, and that the
    teacher is."""

    def __init__(self, trunk: Trunk, student_right: ConfidenceHead, teacher_right: ConfidenceHead) -> None:
        super().__init__()
        self.trunk, self.student_right, self.teacher_right = trunk, student_right, teacher_right

    def forward(self, frames_NTHWC: Tensor) -> tuple[Tensor, Tensor]:
        logits_NK, features_NF = self.trunk(frames_NTHWC)
        return logits_NK, self.confidences(logits_NK, features_NF)

    def confidences(self, logits_NK: Tensor, features_NF: Tensor) -> Tensor:
        """(N, 2), each 0 to 1."""
        both = [
            head(logits_NK, features_NF if head.num_features else None)
            for head in (self.student_right, self.teacher_right)
        ]
        return cast(Tensor, torch.sigmoid(torch.stack(both, dim=1)))
