"""Labels of videos beside the dense teacher's and the true ones: what was lost. Pure.

Shapes: V videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Estimate, mean_over_groups

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """How often labels are right, the dense teacher's are, and both agree; means over videos, intervals over groups.
    None is what nothing is known of. ``right`` is of all videos of which the truth is known, ``agreement`` of all of
    which the dense teacher's word is; ``right_beside``, ``dense`` and ``difference`` are of those of which both are."""

    right: Estimate | None
    labelled: int
    agreement: Estimate | None
    heard: int
    right_beside: Estimate | None
    dense: Estimate | None
    difference: Estimate | None
    beside: int
    groups: int
    """Of the videos of which both are known."""

    @property
    def is_of_most(self) -> bool:
        """Whether the difference is of half of the labelled videos at least, and speaks for them."""
        return self.difference is not None and 2 * self.beside >= self.labelled

    def to_json(self) -> dict[str, Any]:
        estimates = ("right", "agreement", "right_beside", "dense", "difference")
        found = {name: getattr(self, name) for name in estimates}
        return {
            **{name: getattr(self, name) for name in ("labelled", "heard", "beside", "groups")},
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

    def mean(values_V: NDArray[np.generic], where_V: NDArray[np.bool_]) -> Estimate | None:
        if not where_V.any():
            return None
        found_V = values_V[where_V].astype(np.float64)
        return mean_over_groups(found_V, group_V[where_V], num_draws=num_draws)

    right_V = said_V == truth_V
    dense_right_V = dense_V == truth_V
    return Compared(
        right=mean(right_V, true_V),
        labelled=int(true_V.sum()),
        agreement=mean(said_V == dense_V, heard_V),
        heard=int(heard_V.sum()),
        right_beside=mean(right_V, both_V),
        dense=mean(dense_right_V, both_V),
        difference=mean(right_V.astype(np.float64) - dense_right_V, both_V),
        beside=int(both_V.sum()),
        groups=len(np.unique(group_V[both_V])),
    )
