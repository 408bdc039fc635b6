"""A drift alarm: is the risk still below what was promised? An e-process over audited groups, that may be looked at
after each of them.

Under "each loss has a chance of at most alpha, whatever came before" the value is a supermartingale that starts at 1,
so that the chance that it ever reaches 1 / delta is delta at most (Ville's inequality). It is the mean over several
stakes of what a gambler would own who stakes that share of his capital on each loss, at fair odds for alpha.

Does not know whether the groups are drawn as those of the certificate were; that is what it is to find out.

Source: Waudby-Smith and Ramdas 2024 (arXiv 2010.09686); Ramdas et al. 2023 (arXiv 2210.01948).

Shapes: G groups, in an order that hangs on no loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from schemas.arrays import Bools

_STAKES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Shares of the capital that a group without a loss costs: small ones find small drifts, large ones large ones soon."""


@dataclass(frozen=True)
class Drift:
    """What came of G groups. ``e_value`` is the largest so far; ``alarm_at`` counts the groups up to the first alarm,
    None where there was none."""

    groups: int
    losses: int
    alpha: float
    delta: float
    e_value: float
    alarm_at: int | None

    @property
    def alarm(self) -> bool:
        return self.alarm_at is not None


def drift(losses_G: Bools | Iterable[bool], alpha: float, delta: float) -> Drift:
    """Test "the risk is at most ``alpha``" at level ``delta``.

    Raises
    ------
    ValueError
        If alpha or delta is not between 0 and 1.
    """
    if not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError(f"alpha {alpha} and delta {delta} must be between 0 and 1")
    losses = np.asarray(list(losses_G), np.bool_)
    # A stake s wins s (1 - alpha) / alpha of the capital on a loss and costs s otherwise: fair if alpha is the chance.
    stakes = np.array(_STAKES)[:, None]
    steps = np.where(losses[None, :], np.log1p(stakes * (1 - alpha) / alpha), np.log1p(-stakes))
    capital_G = np.exp(np.clip(np.cumsum(steps, axis=1), -700, 700)).mean(axis=0)
    at = np.flatnonzero(capital_G >= 1 / delta)
    return Drift(
        groups=len(losses),
        losses=int(losses.sum()),
        alpha=alpha,
        delta=delta,
        e_value=float(capital_G.max(initial=1.0)),
        alarm_at=int(at[0]) + 1 if len(at) else None,
    )
