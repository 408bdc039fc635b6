"""Choosing so that luck counts for less.

Of many policies the one that looks best on the videos to choose on is partly lucky there, and does worse elsewhere: the
more are tried and the fewer the videos, the more so. How much is found by bootstrap: the same choice is made on videos
drawn anew (in groups), and what was chosen is held against what it comes to on the videos that were drawn from. So much
more is then asked of what is chosen. What the videos themselves say wrongly, of all policies alike, this cannot tell.
(Efron, "Estimating the error rate of a prediction rule", 1983; Harrell et al.,
"Multivariable prognostic models", 1996.)

Shapes: M policies, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MARGINS = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2)
"""What may be asked beyond what is wanted."""


@dataclass(frozen=True)
class Kept:
    """The policy that was chosen, and how much more the choice promised, on average, than it came to."""

    member: int
    optimism: float


def cheapest_that_keeps(
    value_M: Floats, ratio_M: Floats, value_MB: Floats, ratio_MB: Floats, least: float
) -> Kept | None:
    """The cheapest policy whose value is ``least`` at least also when what choosing it promises too much is taken off;
    None where there is none. ``value_MB`` and ``ratio_MB``, the cost, are the same of each draw."""
    columns = np.arange(value_MB.shape[1])
    for margin in MARGINS:
        member = int(_cheapest(value_M[:, None], ratio_M[:, None], least + margin)[0])
        if member < 0:
            return None
        chosen_B = _cheapest(value_MB, ratio_MB, least + margin)
        some = chosen_B >= 0
        promised_B = value_MB[chosen_B, columns] - value_M[chosen_B]
        optimism = float(promised_B[some].mean()) if some.any() else 0.0
        if optimism <= margin:
            return Kept(member, optimism)
    return None


def _cheapest(value_MB: Floats, ratio_MB: Floats, least: float) -> NDArray[np.int64]:
    """Of each draw, the cheapest that is good enough, of equally cheap ones the best; -1 where none is."""
    good_MB = value_MB >= least - 1e-9
    ratio_MB = np.where(good_MB, ratio_MB, np.inf)
    cheap_MB = good_MB & (ratio_MB <= ratio_MB.min(axis=0))
    member_B = np.where(cheap_MB, value_MB, -np.inf).argmax(axis=0)
    return np.asarray(np.where(good_MB.any(axis=0), member_B, -1))
