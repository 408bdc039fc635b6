"""Does the guarantee hold? Calibrations drawn again and again from a population whose risks are known.

    python -m bench.guarantee simulated [--draws 200]
    python -m bench.guarantee pool STUDENT [--draws 200]
    python -m bench.guarantee archive STUDENT JUDGED TARGETS [--draws 200]

``simulated``: made-up scores, with groups that are alike within and groups that are not. ``pool``: a student, and the
groups of its own archive that neither it nor its heads saw (its test split, and the half of the calibration split that
is for certificates). ``archive``: a student and what it said of an archive that it never saw (`bench.distill accuracy
--on` writes JUDGED/predictions/test.parquet), with the targets of that archive; its groups are the population. The
sequence of members comes from the student's own calibration, the groups to certify on are drawn with replacement, and
one video of each: as the theorem has it. A draw
violates the guarantee where the certified member's true risk is above alpha. Printed beside: how often more than "ask
the teacher about everything" was certified, and how little the teacher was then asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.selecting.judged import judged, open_student, targets_of, temperatures, to_choose_on
from pipeline.select.calibrate import disagreements, sequence_of
from pipeline.select.context_fit import ContextFit
from pipeline.select.joined import joined
from pipeline.select.known import Known
from pipeline.select.learn_then_test import certified, groups_needed
from pipeline.select.policies import bases_of, policy_of, usual_aggregation
from pipeline.select.scores import clip_scores
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.policy import PolicySpec

ALPHAS = (0.02, 0.05, 0.1)
SIZES = (150, 300, 600)
DELTA = 0.05


@dataclass(frozen=True)
class Resplits:
    """What so many calibrations came to."""

    violations: int
    refused: int
    beyond_dense: int
    mean_share: float


def resplits(
    losses_MV: NDArray[np.bool_],
    group_V: NDArray[np.integer],
    share_M: NDArray[np.float64],
    *,
    alpha: float,
    delta: float,
    num_groups: int,
    draws: int,
    seed: int = 0,
) -> Resplits:
    """Draw ``num_groups`` groups with replacement, one video of each, certify, and look at the true risk; ``draws``
    times. ``share_M`` is what each member asks the teacher about."""
    _, group_V = np.unique(group_V, return_inverse=True)
    order_V = np.argsort(group_V, kind="stable")
    size_G = np.bincount(group_V)
    first_G = np.cumsum(size_G) - size_G
    risk_M = np.array([(np.bincount(group_V, row) / size_G).mean() for row in losses_MV])
    rng = np.random.default_rng(seed)
    violations = refused = beyond = 0
    shares = []
    for _ in range(draws):
        drawn = rng.integers(0, len(size_G), num_groups)
        videos = order_V[first_G[drawn] + (rng.random(num_groups) * size_G[drawn]).astype(np.int64)]
        count, _ = certified(losses_MV[:, videos], alpha, delta)
        if not count:
            refused += 1
            continue
        violations += bool(risk_M[count - 1] > alpha)
        beyond += bool(share_M[count - 1] < 1.0)
        shares.append(share_M[count - 1])
    return Resplits(violations, refused, beyond, float(np.mean(shares)) if shares else float("nan"))


def made_up(num_groups: int, alike: float, seed: int) -> Known:
    """Clips of a student and a better teacher over ten classes; ``alike``: how much of how hard a clip is, is its
    group's."""
    rng = np.random.default_rng(seed)
    videos_G = rng.integers(1, 6, num_groups)
    group_V = np.repeat(np.arange(num_groups), videos_G)
    clips_V = rng.integers(1, 7, len(group_V))
    video_N = np.repeat(np.arange(len(group_V)), clips_V)
    label_N = rng.integers(0, 10, len(group_V))[video_N]
    of_group, of_video = rng.normal(size=num_groups), rng.normal(size=len(group_V))
    hard_N = np.sqrt(alike) * of_group[group_V[video_N]] + np.sqrt(1 - alike) * of_video[video_N]
    at = np.arange(len(video_N)), label_N
    student, teacher = (rng.normal(0, 1.2, (len(video_N), 10)).astype(np.float32) for _ in range(2))
    student[at] += 3.5 - 1.5 * hard_N
    teacher[at] += 4.5 - 1.5 * hard_N
    ids = [f"{v:032x}" for v in video_N.tolist()]
    start_N = (np.arange(len(video_N)) - (np.cumsum(clips_V) - clips_V)[video_N]) * 2_000_000
    sure = softmax(student).max(axis=1)
    scores = clip_scores(
        ids, start_N, start_N + 2_000_000, student, sure, np.full(len(sure), 0.9, np.float32)
    )
    return Known(scores, softmax(teacher), label_N, group_V.astype(np.uint64))


def table(population: Known, sequences: dict[str, Sequence[PolicySpec]], draws: int) -> list[str]:
    """Lines of results, for each sequence, alpha and number of groups."""
    lines = [
        f"{'policy':32s} {'alpha':>6s} {'groups':>6s} {'violations':>10s} {'refused':>8s} {'beyond':>7s} {'share':>6s}"
    ]
    num_groups = len(np.unique(population.group_V))
    for name, members in sequences.items():
        losses_MV = disagreements(population, members, usual_aggregation(members[-1].kind))
        share_M = np.array([policy_of(m).select(population.scores).teacher_N.mean() for m in members])
        for alpha in ALPHAS:
            for size in SIZES:
                if size > num_groups:
                    continue
                r = resplits(
                    losses_MV,
                    population.group_V,
                    share_M,
                    alpha=alpha,
                    delta=DELTA,
                    num_groups=size,
                    draws=draws,
                )
                lines.append(
                    f"{name:32s} {alpha:6g} {size:6d} {r.violations:6d}/{draws} {r.refused:8d} "
                    f"{r.beyond_dense / draws:7.0%} {r.mean_share:6.1%}"
                )
    return lines


def sequences_from(known: Known) -> dict[str, Sequence[PolicySpec]]:
    """What is tested: thresholds on clips and on videos, by the gain and by entropy (in context too, where there is
    such a thing), and parts of videos."""
    in_context = known.scores.context is not None
    bases = [
        *bases_of(("clip-threshold",), ["gain", "entropy", *(["gain-in-context"] if in_context else [])]),
        *bases_of(("video-threshold",), ["gain", "entropy", *(["video-in-context"] if in_context else [])]),
        *(b for b in bases_of(("video-part",), ("margin",)) if b.part == 0.5),
    ]
    return {f"{b.kind} {b.score}": sequence_of(b, known) for b in bases}


def simulated(draws: int) -> None:
    for name, alike in (("groups unlike within", 0.0), ("groups alike within", 0.9)):
        population, fitted = made_up(20_000, alike, seed=1), made_up(300, alike, seed=2)
        print(f"{name}: {population.scores.num_videos} videos in {len(np.unique(population.group_V))} groups")
        print("\n".join(table(population, sequences_from(fitted), draws)), flush=True)


def pool(student_url: str, draws: int) -> None:
    student = open_student(student_url)
    targets = targets_of(student)
    calibration = judged(student, "calibration", targets)
    temperature = temperatures(student, calibration)[0]
    choosing = to_choose_on(student, calibration, targets).tempered(temperature)
    fit = ContextFit(choosing.known())
    chosen_on = choosing.known(fit.for_these())
    unseen = judged(student, "test", targets).and_(calibration.where(~calibration.fitted_N))
    print_table(unseen.tempered(temperature).known(fit.for_others()), chosen_on, draws)


def archive(student_url: str, place: Path, targets_url: str, draws: int) -> None:
    student = open_student(student_url)
    own = targets_of(student)
    calibration = judged(student, "calibration", own)
    temperature = temperatures(student, calibration)[0]
    fitted = calibration.where(calibration.fitted_N).tempered(temperature).known()
    predictions = pq.read_table(place / "predictions" / "test.parquet")
    elsewhere, missing = joined(
        predictions, read(ShardStore.open(targets_url), ["video_id", "start_us", "logits", "damaged"])
    )
    if missing:
        raise ValueError(f"{missing} clips have no target")
    print_table(elsewhere.tempered(temperature).known(), fitted, draws)


def print_table(population: Known, fitted: Known, draws: int) -> None:
    print(
        f"{population.scores.num_videos} videos in {len(np.unique(population.group_V))} groups; "
        f"{groups_needed(ALPHAS[0], DELTA)} groups are needed for {ALPHAS[0]}"
    )
    print("\n".join(table(population, sequences_from(fitted), draws)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_archive = commands.add_parser("archive")
    of_archive.add_argument("student")
    of_archive.add_argument("judged", type=Path)
    of_archive.add_argument("targets")
    of_pool = commands.add_parser("pool")
    of_pool.add_argument("student")
    for command in (of_archive, of_pool, commands.add_parser("simulated")):
        command.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    if args.command == "simulated":
        simulated(args.draws)
    elif args.command == "pool":
        pool(args.student, args.draws)
    else:
        archive(args.student, args.judged, args.targets, args.draws)


if __name__ == "__main__":
    main()
