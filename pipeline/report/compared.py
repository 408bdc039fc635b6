"""Labels of videos beside the dense teacher's and the true ones: what was lost. Pure.

Shapes: V videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Estimate, bootstrap, interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """How often labels are right, the dense teacher's are, and both agree; means over videos, intervals over groups.
    None is what nothing is known of. ``difference`` is of videos of which the truth and the dense teacher's word are
    known, and so are ``right`` and ``dense`` where there are any."""

    videos: int
    groups: int
    right: Estimate | None
    dense: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    compared: int
    """Videos of which the dense teacher's word is known."""

    def to_json(self) -> dict[str, Any]:
        names = ("right", "dense", "difference", "agreement")
        found = {name: getattr(self, name) for name in names}
        return {
            "videos": self.videos,
            "groups": self.groups,
            "compared": self.compared,
            **{name: None if e is None else e.to_json() for name, e in found.items()},
        }


def compared(
    said_V: Ints, truth_V: Ints, dense_V: Ints, group_V: NDArray[np.generic], *, num_draws: int = 1000
) -> Compared:
    """Classes of labels, of the truth and of the dense teacher, -1 where they are not known. A video without a label of
    ours does not count."""
    counts_V = said_V >= 0
    said_V, truth_V, dense_V = (a[counts_V] for a in (said_V, truth_V, dense_V))
    group_V = group_V[counts_V]
    true_V, heard_V = truth_V >= 0, dense_V >= 0
    both_V = true_V & heard_V
    judged_V = both_V if both_V.any() else true_V

    def mean(values_V: NDArray[np.generic], where_V: NDArray[np.bool_]) -> Estimate | None:
        if not where_V.any():
            return None
        found, groups = values_V[where_V].astype(np.float64), group_V[where_V]
        draws = bootstrap(lambda at: float(found[at].mean()), groups, num_draws=num_draws)
        return Estimate(float(found.mean()), *interval(draws))

    right_V = said_V == truth_V
    dense_right_V = dense_V == truth_V
    return Compared(
        videos=int(judged_V.sum()),
        groups=len(np.unique(group_V[judged_V])),
        right=mean(right_V, judged_V),
        dense=mean(dense_right_V, both_V),
        difference=mean(right_V.astype(np.float64) - dense_right_V, both_V),
        agreement=mean(said_V == dense_V, heard_V),
        compared=int(heard_V.sum()),
    )
