"""After training: confidence heads, and what the student says of held-out clips.

The heads are fitted on the calibration split, without what the teacher itself learnt from; test is looked at once,
here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.distill.checkpoint import as_safetensors
from pipeline.distill.evaluate import Evaluation, evaluate
from pipeline.distill.heads import Fitted, fit_head, uses_features
from pipeline.distill.loader import Loader
from pipeline.distill.predict import run_over, write_predictions
from pipeline.distill.splits import Role, in_order_of_hash
from pipeline.distill.targets import TargetReader
from pipeline.metrics import enough_labels
from pipeline.models.distilled import Student, Trunk
from schemas.arrays import I64, U64, Bools
from schemas.errors import SettingsError

log = logging.getLogger("locum.distill")

MOST_HEAD_ROWS = 100_000
"""A head has a few hundred numbers to fit: more rows are not worth the memory."""

MOST_JUDGED = 100_000
"""Clips of a split, in whole groups, that metrics and their intervals are of."""

_JUDGED = (Role.VAL, Role.CALIBRATION, Role.TEST)
_OF_HEADS = 3  # another order of groups than that of splits


@dataclass(frozen=True)
class Finished:
    """The whole student, its weights as safetensors, and what was measured."""

    student: Student
    weights: bytes
    heads: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation]

    def to_json(self) -> dict[str, Any]:
        return {
            "heads": dict(self.heads),
            "evaluation": {name: e.to_json() for name, e in self.evaluations.items()},
        }


def rows_for_heads(role_R: NDArray[np.int8], known_to_teacher_R: Bools, group_R: U64, share: float) -> Bools:
    """Rows of the calibration split on which the teacher has something to say, of a ``share`` of its groups (one at
    least); (R,).

    Raises
    ------
    SettingsError
        If there is none.
    """
    calibration_R = role_R == Role.CALIBRATION
    if not calibration_R.any():
        raise SettingsError(
            "no clip is left to fit the confidence heads on: the calibration split is empty; name one in the manifest, "
            "or name none, and a fifth of train is taken"
        )
    chosen_R: Bools = calibration_R & ~known_to_teacher_R
    if not chosen_R.any():
        raise SettingsError(
            "all clips of the calibration split are the teacher's own training videos, and say nothing of where it "
            "can be trusted: name another split, or teach videos that it has not seen"
        )
    groups = in_order_of_hash(group_R[chosen_R], _OF_HEADS)
    return chosen_R & np.isin(group_R, groups[: max(1, round(share * len(groups)))])


def finish(
    trunk: Trunk,
    loader: Loader,
    targets: TargetReader,
    role_R: NDArray[np.int8],
    of_heads_R: Bools,
    known_to_teacher_R: Bools,
    folder: Path,
    device: torch.device,
    *,
    seed: int,
) -> Finished:
    """Fit the heads on some rows, write predictions of the held-out splits under ``folder``, and judge them."""
    trunk.eval()
    by_label, rows_R = _what_heads_learn(of_heads_R, targets.snapshot.rows_R["label"] >= 0, seed)
    fitted, about = _fit(trunk, loader, targets, rows_R, by_label, device, seed)
    known = (role_R == Role.CALIBRATION) & known_to_teacher_R
    about["left_out_as_known_to_the_teacher"] = int(known.sum())
    student = Student(trunk, *(f.head for f in fitted)).eval().to(device)
    marks = {"fitted": of_heads_R, "known_to_teacher": known_to_teacher_R}
    evaluations = {}
    for role in _JUDGED:
        rows_R = role_R == role
        if not rows_R.any():
            continue
        path = folder / f"{role.name.lower()}.parquet"
        write_predictions(path, student, loader, targets, rows_R, marks, device)
        evaluations[role.name.lower()] = evaluate(
            _some_groups(path, MOST_JUDGED), by_label=by_label, multi_label=targets.multi_label, seed=seed
        )
    return Finished(student, as_safetensors(student.state_dict()), about, evaluations)


def _fit(
    trunk: Trunk,
    loader: Loader,
    targets: TargetReader,
    rows_R: Bools,
    by_label: bool,
    device: torch.device,
    seed: int,
) -> tuple[tuple[Fitted, Fitted], dict[str, Any]]:
    """The heads that the student, and that the teacher, is right."""
    parts = list(run_over(trunk, loader, rows_R, device))
    rows_N: I64 = np.concatenate([rows for rows, _, _ in parts])
    logits_NK = np.concatenate([logits for _, logits, _ in parts])
    features_NF = np.concatenate([features for _, _, features in parts])
    about_N = np.asarray(targets.snapshot.rows_R[rows_N])
    label_N, group_N = about_N["label"], about_N["group"]
    at_one = TargetReader(targets.snapshot, 1.0, targets.multi_label, targets.weights_M)
    if by_label:
        right_N = logits_NK.argmax(axis=1) == label_N
        rights = right_N.astype(np.float32), (at_one.first(rows_N) == label_N).astype(np.float32)
    else:
        rights = _as_the_teacher_says(at_one, rows_N, logits_NK)
    use = uses_features(len(rows_N), features_NF.shape[1])
    features = features_NF if use else None
    fitted = [
        fit_head(logits_NK, features, right, group_N, multi_label=targets.multi_label, seed=seed)
        for right in rights
    ]
    about = {
        "right_means": "the label" if by_label else "the teacher's probability of it",
        "clips": len(rows_N),
        "uses_features": use,
        "student_right": _about(fitted[0]),
        "teacher_right": _about(fitted[1]),
    }
    return (fitted[0], fitted[1]), about


def _what_heads_learn(of_heads_R: Bools, labelled_R: Bools, seed: int) -> tuple[bool, Bools]:
    """Whether "right" is as the label says, and rows enough of those that say something; (R,)."""
    with_label_R = of_heads_R & labelled_R
    count, known = int(of_heads_R.sum()), int(with_label_R.sum())
    by_label = enough_labels(known, count)
    if known and not by_label:
        log.warning(
            "%d of %d clips for the confidence heads have a label: too few, so the teacher is taken at its word",
            known,
            count,
        )
    return by_label, _at_most(with_label_R if by_label else of_heads_R, MOST_HEAD_ROWS, seed)


def _as_the_teacher_says(
    targets: TargetReader, rows_N: I64, logits_NK: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Without labels: the teacher's probability of the student's first class, and of its own."""
    first_N1 = logits_NK.argmax(axis=1)[:, None]
    if targets.has_kept_only:
        classes_NJ, probs_NJ = targets.kept(rows_N)
        return (probs_NJ * (classes_NJ == first_N1)).sum(axis=1), probs_NJ.max(axis=1)
    probs_NK = targets.dense(rows_N)
    return np.take_along_axis(probs_NK, first_N1, axis=1)[:, 0], probs_NK.max(axis=1)


def _about(fitted: Fitted) -> dict[str, Any]:
    return {"decay": fitted.decay, "cross_validated_losses": [round(x, 6) for x in fitted.losses]}


def _some_groups(path: Path, most: int) -> pa.Table:
    """A table of predictions; where it is long, as many whole groups of it as come to ``most`` rows, by their hash."""
    group_N = pq.read_table(path, columns=["group"])["group"].to_numpy()
    if len(group_N) <= most:
        return pq.read_table(path)
    groups, count_G = np.unique(group_N, return_counts=True)
    taken = groups[np.cumsum(count_G) <= most] if count_G[0] <= most else groups[:1]
    return pq.read_table(path, filters=pc.field("group") <= pa.scalar(taken[-1], pa.uint64()))


def _at_most(rows_R: Bools, most: int, seed: int) -> Bools:
    chosen = np.flatnonzero(rows_R)
    if len(chosen) <= most:
        return rows_R
    out: Bools = np.zeros(len(rows_R), np.bool_)
    out[np.random.default_rng([seed, 5]).choice(chosen, most, replace=False)] = True
    return out
