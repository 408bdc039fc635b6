"""Temperature scaling: the one number that makes probabilities as large as they are often right.

Source: Guo et al. 2017 (arXiv 1706.04599).

Shapes: N clips, K classes.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.uncertainty import logsumexp
from schemas.arrays import I64, Float32

LEAST, MOST = 0.05, 20.0
_STEPS = 60
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits_NK: Float32, label_N: I64) -> float:
    """The temperature, `LEAST` to `MOST`, at which the labels are likeliest. Rows without a label (-1) do not count.

    The mean of -ln p is convex in 1 / temperature, so a golden-section search finds it.

    Raises
    ------
    ValueError
        If no row has a label.
    """
    has_N = label_N >= 0
    if not has_N.any():
        raise ValueError("a temperature is fitted to labels, and no clip has one")
    z_NK, y_N = logits_NK[has_N], label_N[has_N]
    of_label_N = z_NK[np.arange(len(y_N)), y_N].astype(np.float64)

    def loss(inverse: float) -> float:
        return float((logsumexp(z_NK, 1 / inverse).astype(np.float64) - of_label_N * inverse).mean())

    low, high = 1 / MOST, 1 / LEAST
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    for _ in range(_STEPS):
        if loss_a <= loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - _GOLDEN * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + _GOLDEN * (high - low)
            loss_b = loss(b)
    return 2 / (low + high)
