"""Uncertainties against closed forms and against SciPy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import mutual_info_score

from pipeline.uncertainty import (
    energy,
    entropy,
    jensen_shannon,
    logsumexp,
    margin,
    msp,
    mutual_information,
    softmax,
    temporal_jsd,
)

LN2 = math.log(2)
FLOATS = st.floats(-40, 40, width=32)
LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=FLOATS)
SAMPLES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)), elements=FLOATS
)
PAIRS = hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 4), st.integers(1, 8)), elements=FLOATS)
quickly = settings(deadline=None, max_examples=60)


@quickly
@given(LOGITS)
def test_against_scipy(logits: np.ndarray) -> None:
    exact = logits.astype(np.float64)
    p = softmax(logits)
    np.testing.assert_allclose(p, scipy.special.softmax(exact, axis=-1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        logsumexp(logits), scipy.special.logsumexp(exact, axis=-1), rtol=1e-6, atol=1e-6
    )
    tempered = scipy.special.logsumexp(exact / 4, axis=-1)
    np.testing.assert_allclose(logsumexp(logits, 4), tempered, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(entropy(p), scipy.stats.entropy(p.astype(np.float64), axis=-1), atol=1e-5)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits))


@quickly
@given(LOGITS)
def test_ranges_and_types(logits: np.ndarray) -> None:
    n, k = logits.shape
    p = softmax(logits)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    for value, low, high in (
        (msp(p), 1 / k, 1),
        (margin(p), 0, 1),
        (entropy(p), 0, math.log(k)),
        (energy(logits), -np.inf, np.inf),
    ):
        assert value.dtype == np.float32 and value.shape == (n,)
        assert (value >= low - 1e-6).all() and (value <= high + 1e-6).all()
    assert (msp(p) == p.max(axis=-1)).all()
    if k > 1:
        ordered = np.sort(p, axis=-1)
        assert (margin(p) == ordered[:, -1] - ordered[:, -2]).all()


@quickly
@given(LOGITS, st.integers(-1000, 1000))
def test_a_constant_on_all_logits_moves_only_the_energy(logits: np.ndarray, constant: int) -> None:
    logits = np.round(logits * 4) / 4  # exact in float32, shifted or not
    moved = logits + np.float32(constant)
    np.testing.assert_array_equal(softmax(moved), softmax(logits))
    np.testing.assert_allclose(energy(moved), energy(logits) - np.float32(constant), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_huge_logits_do_not_overflow(size: float) -> None:
    logits = np.array([[size, -size, 0], [size, size, -size]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        p = softmax(logits)
        np.testing.assert_array_equal(p, np.array([[1, 0, 0], [0.5, 0.5, 0]], np.float32))
        np.testing.assert_allclose(entropy(p), [0, LN2], rtol=1e-6)
        np.testing.assert_array_equal(margin(p), [1, 0])
        assert np.isfinite(energy(logits)).all()


def test_closed_forms() -> None:
    uniform = softmax(np.zeros((1, 400), np.float32))
    np.testing.assert_allclose(entropy(uniform), [math.log(400)], rtol=1e-6)
    np.testing.assert_allclose(msp(uniform), [1 / 400], rtol=1e-6)
    np.testing.assert_allclose(energy(np.zeros((1, 8), np.float32)), [-math.log(8)], rtol=1e-6)
    one_hot = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(entropy(one_hot), [0, 0, 0])
    np.testing.assert_allclose(jensen_shannon(one_hot[:1], one_hot[1:2]), [LN2], rtol=1e-6)
    np.testing.assert_allclose(mutual_information(one_hot[None, :2]), [LN2], rtol=1e-6)


def test_one_class_is_certain() -> None:
    p = softmax(np.array([[3.0], [-3.0]], np.float32))
    for value, expected in ((p[:, 0], 1), (msp(p), 1), (margin(p), 1), (entropy(p), 0)):
        np.testing.assert_array_equal(value, [expected, expected])
    np.testing.assert_array_equal(mutual_information(p[:, None]), [0, 0])


# -------------------------------------------------------------------------------------- divergences


@quickly
@given(PAIRS)
def test_jensen_shannon_is_symmetric_bounded_zero_on_itself_and_scipys(pair: np.ndarray) -> None:
    p, q = softmax(pair[0]), softmax(pair[1])
    found = jensen_shannon(p, q)
    np.testing.assert_array_equal(found, jensen_shannon(q, p))
    assert (found >= 0).all() and (found <= LN2 + 1e-7).all()
    np.testing.assert_allclose(jensen_shannon(p, p), 0, atol=1e-6)
    expected = jensenshannon(p.astype(np.float64), q.astype(np.float64), axis=-1) ** 2
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=2e-6)


@quickly
@given(SAMPLES)
def test_mutual_information_is_bounded_and_zero_for_equal_samples(logits: np.ndarray) -> None:
    p = softmax(logits)
    samples, classes = p.shape[1:]
    found = mutual_information(p)
    assert found.dtype == np.float32 and found.shape == (len(p),)
    assert (found >= 0).all() and (found <= math.log(min(samples, classes)) + 1e-5).all()
    same = np.repeat(p[:, :1], 5, axis=1)
    np.testing.assert_allclose(mutual_information(same), 0, atol=1e-6)
    order = np.random.default_rng(0).permutation(samples)
    np.testing.assert_allclose(mutual_information(p[:, order]), found, atol=1e-6)


def test_mutual_information_is_that_of_the_sample_and_the_class() -> None:
    counts = np.array([[30, 5, 5], [10, 20, 10]])
    p = (counts / 40).astype(np.float32)
    drawn = [(s, c) for s in range(2) for c in range(3) for _ in range(counts[s, c])]
    np.testing.assert_allclose(
        mutual_information(p[None]), [mutual_info_score(*zip(*drawn, strict=True))], rtol=1e-5
    )


def test_mutual_information_of_two_samples_is_their_jensen_shannon_divergence() -> None:
    p, q = softmax(np.random.default_rng(0).normal(size=(2, 10, 7)).astype(np.float32))
    np.testing.assert_allclose(mutual_information(np.stack([p, q], axis=1)), jensen_shannon(p, q), atol=1e-6)


# -------------------------------------------------------------------------------------- over a video


@quickly
@given(LOGITS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_temporal_divergence_is_from_the_mean_of_the_other_clips(
    logits: np.ndarray, videos: list[int]
) -> None:
    p, video = softmax(logits), np.array(videos[: len(logits)], np.int64)
    found = temporal_jsd(p, video)
    assert found.dtype == np.float32
    for i in range(len(p)):
        others = (video == video[i]) & (np.arange(len(p)) != i)
        if others.any():
            mean = p[others].astype(np.float64).mean(axis=0)[None].astype(np.float32)
            np.testing.assert_allclose(found[i], jensen_shannon(p[i : i + 1], mean)[0], atol=2e-6)
        else:
            assert np.isnan(found[i])


def test_temporal_divergence_of_equal_clips_is_zero_and_of_none_is_empty() -> None:
    p = np.full((4, 3), 1 / 3, np.float32)
    np.testing.assert_allclose(temporal_jsd(p, np.array([7, 7, 9, 9])), 0, atol=1e-6)
    assert temporal_jsd(np.empty((0, 3), np.float32), np.empty(0, np.int64)).shape == (0,)


@quickly
@given(st.integers(2, 6), st.integers(0, 100))
def test_temporal_divergence_follows_its_rows(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(size=(n, 4)).astype(np.float32))
    video, order = rng.integers(0, 2, n), rng.permutation(n)
    np.testing.assert_allclose(temporal_jsd(p[order], video[order]), temporal_jsd(p, video)[order], atol=1e-6)
