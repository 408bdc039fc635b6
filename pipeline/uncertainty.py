"""What a classifier's logits say of its own certainty. Plain NumPy, float32 in and out.

Shapes: N clips, S samples of a clip (views times passes), K classes.

======================  ===================================================  ==================
``msp``                 largest softmax probability                          higher is surer
``margin``              largest minus second largest probability             higher is surer
``entropy``             -sum p ln p, nats, 0 to ln K                         higher is less sure
``energy``              -ln sum exp(logit)                                   higher is less sure
``temporal_jsd``        Jensen-Shannon divergence, nats, 0 to ln 2, between  higher is less sure
                        a clip and the mean of the video's other clips
``mutual_information``  entropy of the mean over samples minus mean of the   higher is less sure
                        entropies (BALD), nats
======================  ===================================================  ==================

Sources: msp, Hendrycks and Gimpel 2017; energy, Liu et al. 2020 (at temperature 1); mutual information, Houlsby
et al. 2011; Jensen-Shannon divergence, Lin 1991.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import Float32


def logsumexp(logits_NK: Float32, temperature: float = 1.0) -> Float32:
    """ln sum exp(logits / temperature) over the last axis, without overflow; (N,)."""
    z = logits_NK.astype(np.float64) / temperature
    top = z.max(axis=-1, keepdims=True)
    return np.asarray((np.log(np.exp(z - top).sum(axis=-1)) + top[..., 0]).astype(np.float32))


def softmax(logits_NK: Float32) -> Float32:
    """Probabilities over the last axis, same shape."""
    z = logits_NK.astype(np.float64)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray((e / e.sum(axis=-1, keepdims=True)).astype(np.float32))


def msp(probs_NK: Float32) -> Float32:
    """Largest probability; (N,)."""
    return np.asarray(probs_NK.max(axis=-1))


def margin(probs_NK: Float32) -> Float32:
    """Largest minus second largest probability; (N,). 1 where there is one class."""
    if probs_NK.shape[-1] == 1:
        return np.ones(probs_NK.shape[:-1], np.float32)
    top2 = np.partition(probs_NK, -2, axis=-1)[..., -2:]
    return np.asarray(top2[..., 1] - top2[..., 0])


def entropy(probs_NK: Float32) -> Float32:
    """Shannon entropy in nats; (N,). 0 ln 0 is 0."""
    p = probs_NK.astype(np.float64)
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    return np.asarray((-terms.sum(axis=-1)).clip(min=0.0).astype(np.float32))


def energy(logits_NK: Float32) -> Float32:
    """Free energy at temperature 1; (N,)."""
    return np.asarray(-logsumexp(logits_NK))


def mutual_information(probs_NSK: Float32) -> Float32:
    """Entropy of the mean minus mean entropy over the samples; (N,), never below 0."""
    mean = probs_NSK.astype(np.float64).mean(axis=1).astype(np.float32)
    return np.asarray((entropy(mean) - entropy(probs_NSK).mean(axis=1)).clip(min=0.0).astype(np.float32))


def jensen_shannon(p_NK: Float32, q_NK: Float32) -> Float32:
    """Jensen-Shannon divergence of each pair of rows, nats; (N,)."""
    middle = ((p_NK.astype(np.float64) + q_NK) / 2).astype(np.float32)
    return np.asarray(
        (entropy(middle) - (entropy(p_NK) + entropy(q_NK)) / 2).clip(0.0, np.log(2)).astype(np.float32)
    )


def temporal_jsd(probs_NK: Float32, video_N: NDArray[np.int64]) -> Float32:
    """Divergence of each clip from the mean of its video's other clips; (N,). NaN for a video of one clip.

    ``video_N`` numbers the video of each row; rows of one video need not be neighbours.
    """
    out = np.full(len(probs_NK), np.nan, np.float32)
    if not len(probs_NK):
        return out
    _, index, counts = np.unique(video_N, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), probs_NK.shape[1]))
    np.add.at(sums, index, probs_NK.astype(np.float64))
    several = counts[index] > 1
    others = (sums[index[several]] - probs_NK[several]) / (counts[index[several]] - 1)[:, None]
    out[several] = jensen_shannon(probs_NK[several], others.astype(np.float32))
    return out
