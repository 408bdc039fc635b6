"""Random numbers that follow from what a thing is called: the same in every process, order and part of a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.arrays import U64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draws_of(hashes: U64, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each hash, another one for another seed; same shape. Mixed as in splitmix64."""
    with np.errstate(over="ignore"):
        x = hashes + _GOLDEN * np.uint64(seed + 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def folds(group_R: U64, num_folds: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each row, 0 to ``num_folds`` - 1; groups stay together, and folds hold about equally many. (R,)"""
    groups, which_R = np.unique(group_R, return_inverse=True)
    order = np.argsort(draws_of(groups, seed))
    fold_G = np.empty(len(groups), np.int64)
    fold_G[order] = np.arange(len(groups)) % num_folds
    return fold_G[which_R]
