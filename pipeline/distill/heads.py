"""Confidence heads, fitted (`pipeline.models.confidence` says what they are).

The features of the student's trunk are used where there are enough rows, and the trunk stays as it is. How strongly the
small network g is held down is chosen by cross-validation over groups; "not at all used" is among the choices.

Heads are fitted on rows that the student did not learn from, never on the teacher's own training videos.

Shapes: N clips, K classes, F features, X inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.distill.losses import confidence
from pipeline.draws import folds
from pipeline.models.confidence import ConfidenceHead
from schemas.arrays import U64

MIN_ROWS_A_FEATURE = 10
"""Features of the trunk are used where there are so many rows to each of them."""

DECAYS: tuple[float | None, ...] = (None, 5e-2, 2e-2, 1e-2, 5e-3, 1e-3)
"""Weight decays that are tried; None is a head without g."""

_FOLDS = 5
_STEPS = 100
_PRIOR = 0.5  # of a normal distribution around "as the largest probability says", in rows


@dataclass(frozen=True)
class Fitted:
    """A head, the weight decay that was chosen for it, and the cross-validated loss (nats a clip) of each choice."""

    head: ConfidenceHead
    decay: float | None
    losses: tuple[float, ...]


def uses_features(num_rows: int, num_features: int) -> bool:
    """Whether so many rows are enough to fit a head on so many features."""
    return num_features > 0 and num_rows >= MIN_ROWS_A_FEATURE * num_features


def fit_head(
    logits_NK: NDArray[np.floating],
    features_NF: NDArray[np.floating] | None,
    right_N: NDArray[np.floating],
    group_N: U64,
    *,
    multi_label: bool = False,
    seed: int = 0,
    decays: Sequence[float | None] = DECAYS,
) -> Fitted:
    """Fit a head to ``right_N``, whether (or how surely, 0 to 1) it is right; the decay by cross-validation over
    groups.

    Raises
    ------
    ValueError
        If there is no row.
    """
    if not len(right_N):
        raise ValueError("a confidence head needs at least one row")
    logits, right = torch.from_numpy(logits_NK).float(), torch.from_numpy(right_N).float()
    features = None if features_NF is None else torch.from_numpy(features_NF).float()
    fold_N = torch.from_numpy(folds(group_N, _FOLDS, seed=seed))
    present = [k for k in range(_FOLDS) if 0 < int((fold_N == k).sum()) < len(right)]
    losses = []
    for decay in decays:
        total = 0.0
        for k in present:
            train, held = fold_N != k, fold_N == k
            head = _fit(logits[train], _some(features, train), right[train], decay, multi_label, seed)
            with torch.no_grad():
                total += float(confidence(head(logits[held], _some(features, held)), right[held]).sum())
        losses.append(total / len(right))
    finite = [loss if np.isfinite(loss) else np.inf for loss in losses]
    chosen = decays[int(np.argmin(finite))] if present and min(finite) < np.inf else None
    head = _fit(logits, features, right, chosen, multi_label, seed)
    return Fitted(head, chosen, tuple(losses) if present else ())


def _some(features: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if features is None else features[rows]


def _fit(
    logits: Tensor,
    features: Tensor | None,
    right: Tensor,
    decay: float | None,
    multi_label: bool,
    seed: int,
) -> ConfidenceHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ConfidenceHead(logits.shape[1], 0 if features is None else features.shape[1], multi_label)
    with torch.no_grad():
        x_NX = head.inputs(logits, features)
        head.mean_X.copy_(x_NX.mean(0))
        head.std_X.copy_(x_NX.std(0, correction=0).clamp_min(1e-3))
    _descend(head, [head.log_slope, head.offset], logits, features, right, 0.0)
    if decay is not None:
        _descend(head, list(head.parameters()), logits, features, right, decay)
    head.eval().requires_grad_(False)
    return head


def _descend(
    head: ConfidenceHead,
    parameters: list[Tensor],
    logits: Tensor,
    features: Tensor | None,
    right: Tensor,
    decay: float,
) -> None:
    """Minimise the mean loss and ``decay`` times the squared weights of g, over all rows at once."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = confidence(head(logits, features), right).mean()
        loss = loss + decay * (head.hidden.weight.square().sum() + head.out.weight.square().sum())
        # With few rows, all right perhaps, a head must not become sure of everything.
        loss = loss + _PRIOR / len(right) * (head.log_slope.square() + head.offset.square())
        loss.backward()
        return loss

    optimizer.step(closure)
