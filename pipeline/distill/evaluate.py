"""How good a student is on held-out clips: one table of metrics, each with an interval from a bootstrap over groups.

Reads what `pipeline.distill.predict` wrote. The teacher stands beside the student on the same rows, and max-probability
beside each confidence head, compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.columns import matrix
from pipeline.metrics import Estimate
from pipeline.uncertainty import softmax

NUM_DRAWS = 500
"""Of the bootstrap, where not said otherwise."""

Statistic = Callable[[NDArray[np.intp]], float]


@dataclass(frozen=True)
class Evaluation:
    """``metrics`` by name: of the student, of the ``teacher_…`` and of the two heads."""

    clips: int
    videos: int
    groups: int
    labelled_clips: int
    metrics: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        counts = {
            "clips": self.clips,
            "videos": self.videos,
            "groups": self.groups,
            "labelled_clips": self.labelled_clips,
        }
        return {**counts, "metrics": {name: m.to_json() for name, m in self.metrics.items()}}


def evaluate(
    predictions: pa.Table,
    *,
    by_label: bool = True,
    multi_label: bool = False,
    num_draws: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Metrics of a table of predictions; those against labels are of the clips that have one.

    ``by_label``: what is right is as the label says; else as the teacher says, and its own head is not judged.
    ``multi_label``: probabilities are sigmoids, and what takes them to come to 1 is left out. Heads are judged on rows
    on which they were not fitted, and the teacher on videos that it was not trained on.

    Raises
    ------
    ValueError
        If the table is empty.
    """
    if not predictions.num_rows:
        raise ValueError("there is nothing to evaluate on")
    num_draws = num_draws or NUM_DRAWS
    logits_NK = matrix(predictions["logits"])
    probs_NK = 1 / (1 + np.exp(-logits_NK)) if multi_label else softmax(logits_NK)
    top1_N, msp_N = probs_NK.argmax(axis=1), probs_NK.max(axis=1)
    label_N = predictions["label"].fill_null(-1).to_numpy()
    teacher_N = predictions["teacher_top1"].to_numpy()
    group_N = predictions["group"].to_numpy()
    video_N = np.unique(np.array(predictions["video_id"].to_pylist()), return_inverse=True)[1]
    has = label_N >= 0
    found: dict[str, Estimate] = {}

    def add(name: str, statistic: Statistic, rows: NDArray[np.bool_], *, around: bool = False) -> None:
        chosen = np.flatnonzero(rows)
        if not len(chosen):
            return
        draws = metrics.bootstrap(
            lambda at: statistic(chosen[at]), group_N[chosen], num_draws=num_draws, seed=seed
        )
        value = statistic(chosen)
        between = metrics.interval_around(value, draws) if around else metrics.interval(draws)
        found[name] = Estimate(value, *between)

    every = np.ones(len(label_N), np.bool_)
    add("agreement", lambda at: metrics.accuracy(top1_N[at] == teacher_N[at]), every)
    kl_N = predictions["kl"].to_numpy(zero_copy_only=False)
    add("kl", lambda at: float(kl_N[at].mean()), ~np.isnan(kl_N.astype(np.float64)))
    add("accuracy", lambda at: metrics.accuracy(top1_N[at] == label_N[at]), has)
    new_N = ~predictions["known_to_teacher"].to_numpy(zero_copy_only=False)
    add("teacher_accuracy", lambda at: metrics.accuracy(teacher_N[at] == label_N[at]), has & new_N)
    if has.any():
        found["video_accuracy"] = _of_videos(
            video_rights(probs_NK[has], label_N[has], video_N[has]),
            group_N[has],
            video_N[has],
            num_draws,
            seed,
        )
    if not multi_label:
        add("nll", lambda at: metrics.nll(probs_NK[at], label_N[at]), has)
        add("brier", lambda at: metrics.brier(probs_NK[at], label_N[at]), has)
    right_N = top1_N == (label_N if by_label else teacher_N)
    judged = has if by_label else every
    add("ece", lambda at: metrics.ece(msp_N[at], right_N[at]), judged, around=True)
    unseen = ~predictions["fitted"].to_numpy(zero_copy_only=False)
    own_N, of_teacher_N = (predictions[c].to_numpy() for c in ("student_right", "teacher_right"))
    _add_head(add, "student_right", own_N, msp_N, right_N, judged & unseen)
    if by_label:
        rows, teacher_right_N = has & unseen & new_N, teacher_N == label_N
        _add_head(add, "teacher_right", of_teacher_N, msp_N, teacher_right_N, rows)
        teacher_msp_N = predictions["teacher_msp"].to_numpy()
        add(
            "teacher_right_auroc_of_teacher_msp",
            lambda at: metrics.auroc(teacher_msp_N[at], teacher_right_N[at]),
            rows,
        )
    return Evaluation(
        clips=len(label_N),
        videos=int(video_N.max()) + 1,
        groups=len(np.unique(group_N)),
        labelled_clips=int(has.sum()),
        metrics=found,
    )


class Add(Protocol):
    """Adds a metric of some rows; its interval is ``around`` the value, or between percentiles of the draws."""

    def __call__(
        self, name: str, statistic: Statistic, rows: NDArray[np.bool_], *, around: bool = ...
    ) -> None: ...


def _add_head(
    add: Add,
    name: str,
    score_N: NDArray[np.floating],
    msp_N: NDArray[np.floating],
    right_N: NDArray[np.bool_],
    rows: NDArray[np.bool_],
) -> None:
    """A head and max-probability on the same rows, and by how much the head ranks better."""
    add(f"{name}_auroc", lambda at: metrics.auroc(score_N[at], right_N[at]), rows)
    add(f"{name}_auroc_of_msp", lambda at: metrics.auroc(msp_N[at], right_N[at]), rows)
    add(
        f"{name}_auroc_gain",
        lambda at: metrics.auroc(score_N[at], right_N[at]) - metrics.auroc(msp_N[at], right_N[at]),
        rows,
    )
    add(f"{name}_ece", lambda at: metrics.ece(score_N[at], right_N[at]), rows, around=True)
    add(f"{name}_aurc", lambda at: metrics.aurc(score_N[at], right_N[at]), rows)
    add(f"{name}_augrc", lambda at: metrics.augrc(score_N[at], right_N[at]), rows)


def video_rights(
    probs_NK: NDArray[np.floating], label_N: NDArray[np.integer], video_N: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Whether the mean of each video's clips is largest at its label; (V,), in order of the videos' numbers."""
    videos, first_V, which_N = np.unique(video_N, return_index=True, return_inverse=True)
    sums_VK = np.zeros((len(videos), probs_NK.shape[1]))
    np.add.at(sums_VK, which_N, probs_NK)
    return np.asarray(sums_VK.argmax(axis=1) == label_N[first_V])


def _of_videos(
    right_V: NDArray[np.bool_],
    group_N: NDArray[np.generic],
    video_N: NDArray[np.integer],
    num_draws: int,
    seed: int,
) -> Estimate:
    group_V = group_N[np.unique(video_N, return_index=True)[1]]
    draws = metrics.bootstrap(
        lambda at: metrics.accuracy(right_V[at]), group_V, num_draws=num_draws, seed=seed
    )
    return Estimate(metrics.accuracy(right_V), *metrics.interval(draws))
