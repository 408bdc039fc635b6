"""Confidence heads: they find what max-probability cannot see, and leave it alone where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.distill.heads import fit_head, uses_features
from pipeline.metrics import auroc
from pipeline.models.confidence import ConfidenceHead


def clips(
    num_clips: int, seed: int, *, hidden: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, features, whether right, groups. With ``hidden`` a feature says more about being right than the
    logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_clips, 4)).astype(np.float32)
    features = rng.normal(0, 1, (num_clips, 3)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    score = np.log(probs.max(1) / (1 - probs.max(1))) * 0.8
    if hidden:
        score = score - 3.0 * np.abs(features[:, 1]) + 2.0
    right = rng.random(num_clips) < 1 / (1 + np.exp(-score))
    groups = rng.integers(0, max(2, num_clips // 4), num_clips).astype(np.uint64) * np.uint64(2**40 + 7)
    return logits, features, right.astype(np.float32), groups


def scores(head: ConfidenceHead, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return head(torch.from_numpy(logits), torch.from_numpy(features)).numpy()


def msp(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits).max(1) / np.exp(logits).sum(1)


def test_a_new_head_ranks_as_max_probability_does() -> None:
    logits, features, _, _ = clips(200, 0, hidden=False)
    fresh = scores(ConfidenceHead(4, 3), logits, features)
    assert np.argsort(fresh, kind="stable").tolist() == np.argsort(msp(logits), kind="stable").tolist()


def test_what_the_features_know_is_found() -> None:
    fitted = fit_head(*clips(1200, 1, hidden=True))
    logits, features, right, _ = clips(1200, 2, hidden=True)
    assert fitted.decay is not None
    gain = auroc(scores(fitted.head, logits, features), right > 0) - auroc(msp(logits), right > 0)
    assert gain > 0.08


def test_where_there_is_nothing_to_find_nothing_is_lost() -> None:
    fitted = fit_head(*clips(300, 3, hidden=False))
    logits, features, right, _ = clips(2000, 4, hidden=False)
    loss = auroc(msp(logits), right > 0) - auroc(scores(fitted.head, logits, features), right > 0)
    assert loss < 0.01


def test_a_fitted_head_is_calibrated() -> None:
    fitted = fit_head(*clips(2000, 5, hidden=True))
    logits, features, right, _ = clips(4000, 6, hidden=True)
    said = 1 / (1 + np.exp(-scores(fitted.head, logits, features)))
    for low in (0.0, 0.25, 0.5, 0.75):
        part = (said >= low) & (said < low + 0.25)
        assert said[part].mean() == pytest.approx(right[part].mean(), abs=0.06)


def test_it_repeats() -> None:
    data = clips(300, 7, hidden=True)
    first, second = (fit_head(*data).head.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("right", [np.ones, np.zeros])
def test_one_kind_alone_gives_finite_numbers(right: object) -> None:
    logits, features, _, groups = clips(60, 8, hidden=False)
    fitted = fit_head(logits, features, right(60, np.float32), groups)  # type: ignore[operator]
    assert np.isfinite(scores(fitted.head, logits, features)).all()


def test_a_single_group_gives_a_head_without_a_network() -> None:
    logits, features, right, _ = clips(40, 9, hidden=True)
    assert fit_head(logits, features, right, np.zeros(40, np.uint64)).decay is None


def test_features_need_rows() -> None:
    assert uses_features(1000, 100) and not uses_features(999, 100) and not uses_features(10, 0)
    with pytest.raises(ValueError, match="one row"):
        fit_head(np.empty((0, 4), np.float32), None, np.empty(0, np.float32), np.empty(0, np.uint64))
