"""Arms that were trained with the same seeds, on the same held-out clips: means over seeds, and paired intervals.

What is averaged over seeds first is a clip's or a video's own number (was it right, how far from the teacher), so
that the bootstrap over groups sees the spread between videos; that between seeds is printed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.distill.evaluate import video_rights
from pipeline.uncertainty import softmax

Floats = NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True)
class Held:
    """What students of one arm, one a seed, said of the same clips. S seeds, N clips, V videos."""

    right_SN: Floats
    video_right_SV: Floats
    kl_SN: Floats
    own_SN: Floats
    teacher_SN: Floats
    msp_SN: Floats
    nll_SN: Floats
    student_right_SN: NDArray[np.bool_]
    teacher_right_N: NDArray[np.bool_]
    key_N: NDArray[np.str_]
    group_N: NDArray[np.uint64]
    group_V: NDArray[np.uint64]


def held(
    folders: Sequence[Sequence[str]], split: str = "test", like: Sequence[Sequence[str]] | None = None
) -> Held:
    """Read the predictions of one arm's students: for each seed, the student, or those of each fold. Labels are those
    of the students of another arm, ``like``, where this one was not to see any."""
    tables = [
        pa.concat_tables(
            pq.read_table(Path(f) / "predictions" / f"{split}.parquet") for f in of_seed
        ).sort_by([("video_id", "ascending"), ("start_us", "ascending")])
        for of_seed in folders
    ]
    first = tables[0]
    keys = first.select(["video_id", "start_us"])
    if len(keys.group_by(["video_id", "start_us"]).aggregate([])) != len(keys):
        raise ValueError("a clip was judged twice: folds were dealt anew in between")
    for table in tables:
        if not table.select(["video_id", "start_us"]).equals(first.select(["video_id", "start_us"])):
            raise ValueError("the students did not judge the same clips")
    if like is not None:
        truth = pa.concat_tables(
            pq.read_table(
                Path(f) / "predictions" / f"{split}.parquet", columns=["video_id", "start_us", "label"]
            )
            for f in like[0]
        ).sort_by([("video_id", "ascending"), ("start_us", "ascending")])
        if not truth.select(["video_id", "start_us"]).equals(first.select(["video_id", "start_us"])):
            raise ValueError("the students did not judge the same clips")
        at = first.column_names.index("label")
        tables = [t.set_column(at, "label", truth["label"]) for t in tables]
    tables = [t.filter(pc.is_valid(t["label"])) for t in tables]
    first = tables[0]
    label = first["label"].to_numpy()
    rows = np.arange(len(label))
    video = np.unique(np.array(first["video_id"].to_pylist()), return_inverse=True)[1]
    group = first["group"].to_numpy()
    probs = [softmax(np.stack(t["logits"].to_numpy()).astype(np.float32)) for t in tables]
    rights = [p.argmax(1) == label for p in probs]
    return Held(
        right_SN=np.array(rights, np.float64),
        video_right_SV=np.array([video_rights(p, label, video) for p in probs], np.float64),
        kl_SN=np.array([t["kl"].to_numpy() for t in tables], np.float64),
        own_SN=np.array([t["student_right"].to_numpy() for t in tables], np.float64),
        teacher_SN=np.array([t["teacher_right"].to_numpy() for t in tables], np.float64),
        msp_SN=np.array([p.max(1) for p in probs], np.float64),
        nll_SN=np.array(
            [-np.log(np.maximum(p[rows, label], np.finfo(np.float32).tiny)) for p in probs], np.float64
        ),
        student_right_SN=np.array(rights),
        teacher_right_N=first["teacher_top1"].to_numpy() == label,
        key_N=np.array(
            [
                f"{v} {t}"
                for v, t in zip(first["video_id"].to_pylist(), first["start_us"].to_pylist(), strict=True)
            ]
        ),
        group_N=group,
        group_V=group[np.unique(video, return_index=True)[1]],
    )


def line(name: str, value: float, draws: Floats) -> str:
    low, high = metrics.interval(draws)
    return f"  {name:44s} {value:8.4f}  [{low:.4f}, {high:.4f}]"


def summary(name: str, arm: Held) -> list[str]:
    """One arm's table."""
    lines = [
        f"{name}: {arm.right_SN.shape[1]} clips, {arm.video_right_SV.shape[1]} videos, {len(arm.right_SN)} seeds"
    ]
    for what, values_SN, group in (
        ("clip accuracy", arm.right_SN, arm.group_N),
        ("video accuracy", arm.video_right_SV, arm.group_V),
        ("KL from the teacher, final phase and all", arm.kl_SN, arm.group_N),
    ):
        mean_N = values_SN.mean(axis=0)
        draws = metrics.bootstrap(lambda at, m=mean_N: float(m[at].mean()), group, num_draws=DRAWS)
        seeds = ", ".join(f"{v:.4f}" for v in values_SN.mean(axis=1))
        lines.append(f"{line(what, float(mean_N.mean()), draws)}   seeds: {seeds}")
    for what, score_SN, right in (
        ("own errors", arm.own_SN, lambda s: arm.student_right_SN[s]),
        ("teacher's errors", arm.teacher_SN, lambda s: arm.teacher_right_N),
    ):

        def gain(at: NDArray[np.intp], score_SN: Floats = score_SN, right: object = right) -> float:
            each = [
                metrics.auroc(score_SN[s][at], right(s)[at]) - metrics.auroc(arm.msp_SN[s][at], right(s)[at])  # type: ignore[operator]
                for s in range(len(score_SN))
            ]
            return float(np.mean(each))

        every = np.arange(arm.right_SN.shape[1])
        own = float(np.mean([metrics.auroc(score_SN[s], right(s)) for s in range(len(score_SN))]))
        draws = metrics.bootstrap(gain, arm.group_N, num_draws=300)
        lines.append(
            f"{line(f'AUROC gain over max-probability, {what}', gain(every), draws)}   head: {own:.4f}"
        )
    return lines


def paired(name: str, first: Held, second: Held) -> list[str]:
    """First minus second, on the same draws.

    Raises
    ------
    ValueError
        If they were judged on other clips.
    """
    if not np.array_equal(first.key_N, second.key_N):
        raise ValueError("the arms did not judge the same clips")
    lines = [f"{name}:"]
    for what, a_SN, b_SN, group in (
        ("clip accuracy, difference", first.right_SN, second.right_SN, first.group_N),
        ("video accuracy, difference", first.video_right_SV, second.video_right_SV, first.group_V),
    ):
        difference_N = a_SN.mean(axis=0) - b_SN.mean(axis=0)
        draws = metrics.bootstrap(lambda at, d=difference_N: float(d[at].mean()), group, num_draws=DRAWS)
        lines.append(line(what, float(difference_N.mean()), draws))
    return lines


def against_online(
    kl_N: Floats, online_kl_N: Floats, right_N: Floats, online_right_N: Floats, group_N: NDArray[np.uint64]
) -> list[str]:
    """A student from the cache beside one with the teacher in the loop: ratio of KLs, difference of accuracies
    (``right_N`` is NaN where there is no label), with intervals by group."""

    known_N = ~np.isnan(right_N)
    gap_N = (right_N - online_right_N)[known_N]

    def ratio(at: NDArray[np.intp]) -> float:
        return float(kl_N[at].mean() / online_kl_N[at].mean())

    def difference(at: NDArray[np.intp]) -> float:
        return float(gap_N[at].mean())

    return [
        line(what, function(np.arange(len(group))), metrics.bootstrap(function, group, num_draws=DRAWS))
        for what, function, group in (
            ("KL, ratio", ratio, group_N),
            ("clip accuracy, difference", difference, group_N[known_N]),
        )
    ]
