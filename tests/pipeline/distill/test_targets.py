"""Targets as probabilities: what rounding leaves of them, and what cannot be had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.distill.heads import fit_head
from pipeline.distill.snapshot import Teacher
from pipeline.distill.targets import TargetReader, check_readable
from schemas.errors import SettingsError
from schemas.targets import TOP_K_TEMPERATURES


def sure_top_k(rows: int = 400, classes: int = 8, kept: int = 3) -> tuple[TargetReader, np.ndarray]:
    """Top-k targets of a teacher that is sure of itself, as a store holds them, and its own probabilities of those."""
    logits = np.random.default_rng(0).normal(0, 2, (rows, classes)) + 12
    logits[:, 0] += 9
    lse = np.stack([np.log(np.exp(logits / t).sum(axis=1)) for t in TOP_K_TEMPERATURES], axis=1)
    order = np.argsort(-logits, axis=1)[:, :kept]
    top = np.take_along_axis(logits, order, axis=1)
    teacher = Teacher(top.astype(np.float16), order.astype(np.int32), lse.astype(np.float32))
    snapshot = SimpleNamespace(teachers=(teacher,), num_classes=classes)
    return TargetReader(cast(Any, snapshot)), np.exp(top - lse[:, :1])


def test_rounded_top_k_logits_never_come_to_more_than_one() -> None:
    reader, exact_NJ = sure_top_k()
    rows = np.arange(len(exact_NJ))
    _, probs_NJ = reader.kept(rows)
    assert probs_NJ.sum(axis=1).max() <= 1 + 1e-6
    np.testing.assert_allclose(probs_NJ, exact_NJ, atol=0.01)
    teacher = reader.snapshot.teachers[0]
    raw = np.exp(teacher.logits_RK.astype(np.float64) - np.asarray(teacher.lse_R3)[:, :1])
    assert (raw.sum(axis=1) > 1).mean() > 0.2  # what the rounding does by itself


def test_a_head_can_be_fitted_to_them() -> None:
    reader, _ = sure_top_k()
    rng, rows = np.random.default_rng(1), np.arange(400)
    right = reader.kept(rows)[1].max(axis=1)
    fitted = fit_head(rng.normal(0, 1, (400, 8)).astype(np.float32), None, right, rows.astype(np.uint64))
    assert np.isfinite(fitted.losses).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1, False, 0.0, False, None), "must be above 0"),
        ((2, False, 1.0, False, (1.0,)), "for each of 2 teachers"),
        ((2, False, 1.0, False, (1.0, 0.0)), "for each of 2 teachers"),
        ((2, True, 1.0, False, None), "a single teacher"),
        ((1, True, 1.0, True, None), "no multi-label"),
        ((1, True, 3.0, False, None), "not at 3"),
    ],
)
def test_what_cannot_be_had_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        check_readable(*arguments)
