"""Losses against closed forms, each other, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.distill.losses import confidence, kl, kl_of_kept, multi_label_kl, sure_or_flat

TEMPERATURES = [1.0, 2.0, 4.0]


def logits(seed: int, num: int = 6, classes: int = 5) -> torch.Tensor:
    return 3 * torch.randn(num, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_torchs_and_zero_at_the_target(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p = F.softmax(teacher / temperature, dim=1)
    q = F.log_softmax(student / temperature, dim=1)
    expected = F.kl_div(q, p, reduction="none").sum(1) * temperature**2
    torch.testing.assert_close(kl(student, p, temperature), expected)
    torch.testing.assert_close(kl(teacher, p, temperature), torch.zeros(6), atol=1e-5, rtol=0)
    assert (kl(student, p, temperature) > 0).all()


def test_kl_to_a_label_is_cross_entropy_and_nothing_is_asked_of_impossible_classes() -> None:
    student, label = logits(0), torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(
        kl(student, F.one_hot(label, 5)), F.cross_entropy(student, label, reduction="none")
    )
    student[:, 4] = -math.inf
    assert torch.isfinite(kl(student, F.one_hot(label.clamp_max(3), 5))).all()


def test_gradients_are_as_large_at_any_temperature() -> None:
    """What T**2 is for: near a flat student the gradient does not depend on T."""
    teacher = 1e-2 * logits(1)
    sizes = []
    for temperature in TEMPERATURES:
        student = torch.zeros(6, 5, requires_grad=True)
        kl(student, F.softmax(teacher / temperature, dim=1), temperature).sum().backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes == pytest.approx([sizes[0]] * 3, rel=0.02)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kept_classes_are_compared_and_the_rest_as_one(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p = F.softmax(teacher / temperature, dim=1)
    kept = teacher.topk(2).indices
    value = kl_of_kept(student, kept, p.gather(1, kept), temperature)
    q = F.softmax(student / temperature, dim=1)
    for n in range(6):
        rest = [k for k in range(5) if k not in kept[n]]
        pairs = [(p[n, k], q[n, k]) for k in kept[n]] + [(p[n, rest].sum(), q[n, rest].sum())]
        by_hand = temperature**2 * sum(float(a * (a / b).log()) for a, b in pairs)
        assert float(value[n]) == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
    assert (value <= kl(student, p, temperature) + 1e-6).all()


def test_where_all_classes_are_kept_it_is_the_dense_loss_with_finite_gradients() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    p = F.softmax(teacher, dim=1)
    kept = teacher.argsort(dim=1, descending=True)
    value = kl_of_kept(student, kept, p.gather(1, kept))
    torch.testing.assert_close(value, kl(student, p), atol=1e-5, rtol=1e-4)
    value.sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_multi_label_is_a_mean_of_coins() -> None:
    student, teacher = logits(0), logits(1)
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)
    torch.testing.assert_close(multi_label_kl(student, p), by_hand, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(multi_label_kl(teacher, p), torch.zeros(6), atol=1e-5, rtol=0)
    sure = torch.tensor([[0.0, 1.0]])
    assert torch.isfinite(multi_label_kl(torch.zeros(1, 2), sure)).all()


def test_a_confidence_is_least_wrong_at_the_share_that_is_right() -> None:
    right = torch.tensor([1.0, 1.0, 1.0, 0.0])
    at = torch.linspace(-3, 3, 601)
    losses = torch.stack([confidence(z.expand(4), right).mean() for z in at])
    assert float(torch.sigmoid(at[losses.argmin()])) == pytest.approx(0.75, abs=0.01)


def test_the_last_phase_sharpens_what_is_right_and_flattens_what_is_wrong() -> None:
    student = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]], requires_grad=True)
    label = torch.tensor([0, 1])
    value = sure_or_flat(student, label)
    assert float(value[0].detach()) == pytest.approx(float(F.cross_entropy(student[:1], label[:1]).detach()))
    value.sum().backward()
    assert student.grad is not None
    assert student.grad[0, 0] < 0 < student.grad[0, 1]  # a step down makes the right answer surer
    assert student.grad[1, 0] > 0 > student.grad[1, 1]  # and the wrong one less sure, without naming another
    torch.testing.assert_close(student.grad[1, 1], student.grad[1, 2])
    assert float(sure_or_flat(torch.tensor([[1.0, 1.0 - 1e-6]]), torch.tensor([1]))) == pytest.approx(
        0, abs=1e-6
    )
