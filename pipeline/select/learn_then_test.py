"""Learn-then-Test with a fixed sequence: how far along a sequence of policies a bound on the risk can be guaranteed.

The members stand in an order that was fixed before the losses were seen, the safest first. Each is tested at the full
level against "its risk is above alpha", by the exact binomial tail of its number of losses, and testing stops at the
first that is not rejected: with probability 1 - delta over the draw of the groups, none of those before it has a risk
above alpha.

A loss is of one group, 0 or 1, and groups are taken to be independent draws from what is to be labelled. Does not know
whether they are, nor what was looked at before the sequence was fixed.

Sources: Angelopoulos et al. 2021 (arXiv 2110.01052); fixed-sequence testing, Maurer et al. 1995.

Shapes: M members, G groups, V videos.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.draws import draws_of
from schemas.arrays import U64, Bools


def p_value(losses: int, groups: int, alpha: float) -> float:
    """The chance of so few losses among so many groups, were the risk ``alpha``: the binomial distribution function."""
    if not 0 < alpha < 1 or not 0 <= losses <= groups:
        raise ValueError(
            f"{losses} losses of {groups} groups at {alpha}: 0 < alpha < 1, and losses of the groups"
        )
    i = np.arange(losses, dtype=np.float64)
    steps = np.log(groups - i) - np.log(i + 1) + math.log(alpha) - math.log1p(-alpha)
    log_terms = groups * math.log1p(-alpha) + np.concatenate([[0.0], np.cumsum(steps)])
    top = float(log_terms.max())
    return min(1.0, math.exp(top) * float(np.exp(log_terms - top).sum()))


def upper_bound(losses: int, groups: int, delta: float) -> float:
    """The least risk under which so few losses have a chance of ``delta`` or less: the true one is below it with
    confidence ``1 - delta`` (Clopper and Pearson 1934). 1 where all are losses, or there is no group."""
    if not groups or losses == groups:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(losses, groups, middle) > delta else (low, middle)
    return high


def groups_needed(alpha: float, delta: float, risk: float = 0.0) -> int | None:
    """The least number of groups with which a member of this true ``risk`` would be certified if it had just that share
    of losses, rounded up; None where no number would do."""
    if not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError(f"alpha {alpha} and delta {delta} must be between 0 and 1")
    if risk >= alpha:
        return None
    count = math.ceil(math.log(delta) / math.log1p(-alpha))
    while p_value(math.ceil(round(risk * count, 9)), count, alpha) > delta:
        count = math.ceil(count * 1.01) + 1
    return count


def certified(losses_MG: Bools, alpha: float, delta: float) -> tuple[int, tuple[float, ...]]:
    """How many members, from the first on, are certified; and the p-value of each that was tested.

    Raises
    ------
    ValueError
        If there is no group.
    """
    num_groups = losses_MG.shape[1]
    if not num_groups:
        raise ValueError("nothing can be certified without groups")
    tested: list[float] = []
    for losses_G in losses_MG:
        tested.append(p_value(int(losses_G.sum()), num_groups, alpha))
        if tested[-1] > delta:
            return len(tested) - 1, tuple(tested)
    return len(tested), tuple(tested)


def one_of_each_group(group_V: U64, hash_V: U64, salt: int) -> NDArray[np.intp]:
    """The number of one video of each group, drawn by the hash of its id: fixed by the salt, whatever is left out or
    comes in between. In order of the groups; (G,)."""
    order_V = np.lexsort((draws_of(hash_V, salt), group_V))
    _, first_G = np.unique(group_V[order_V], return_index=True)
    return np.asarray(order_V[first_G])
