"""The trunk: features only where they are what the head takes; and an export that is held against the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.distill.export import export_student
from pipeline.models.confidence import ConfidenceHead
from pipeline.models.distilled import Student, Trunk
from pipeline.models.student import shows_features
from schemas.errors import ModelError
from schemas.model import InputSpec, ModelRef

REF = ModelRef(factory="x:y", num_classes=3)
SHAPE = (4, 8, 8)


class Net(nn.Module):
    """Means over time and space, and a head; ``between`` lies between both when the network itself runs."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.between = between or nn.Identity()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.between(self.features(x)))


class Flat(Net):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3, 4)))


class Wild(Net):
    """Says something else in each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand(1)


def student_of(net: nn.Module, has_features: bool) -> Student:
    trunk = Trunk(net, InputSpec(), has_features=has_features)
    size = 3 if has_features else 0
    return Student(trunk, ConfidenceHead(3, size), ConfidenceHead(3, 0)).eval()


@pytest.mark.parametrize(
    ("net", "shown"),
    [
        (Net(), True),
        (Net(nn.Softplus()), False),
        (Flat(), False),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), False),
    ],
)
def test_features_are_shown_where_the_head_takes_them(net: nn.Module, shown: bool) -> None:
    assert shows_features(net, REF, SHAPE) is shown
    frames = torch.randint(0, 256, (2, *SHAPE, 3), dtype=torch.uint8)
    logits, features = Trunk(net, InputSpec(), has_features=shown)(frames)
    assert features.shape == (2, 3 if shown else 0)
    x = frames.permute(0, 4, 1, 2, 3).float() / 255
    torch.testing.assert_close(logits, net(x))


@pytest.mark.parametrize("has_features", [True, False])
def test_an_exported_student_says_the_same(tmp_path: Path, has_features: bool) -> None:
    student = student_of(Net(), has_features)
    assert export_student(student, SHAPE, tmp_path / "s.pt2") < 1e-5
    program = torch.export.load(tmp_path / "s.pt2").module()
    frames = torch.randint(0, 256, (1, *SHAPE, 3), dtype=torch.uint8)
    for ours, theirs in zip(student(frames), program(frames), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="differs from the trained one"):
        export_student(student_of(Wild(), False), SHAPE, tmp_path / "s.pt2")
