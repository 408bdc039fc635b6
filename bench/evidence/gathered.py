"""All numbers of one data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench.distill import say
from bench.distill_arms.compare import Held, held
from bench.evidence.auroc import Line, ablation, clips_of
from bench.evidence.outcomes import ROWS, Came, Folds, Over, Row, Student
from bench.evidence.recipe import DISTILLED, Recipe
from bench.evidence.students import Arm, train_all
from jobs.calibrate import TRIED
from pipeline import metrics
from pipeline.metrics import Estimate
from pipeline.select.known import GainOracle, LabelOracle
from schemas.policy import ScoreName, Wish

_AUROC_DRAWS = 300
CHOSEN = Row("what calibrate chose", TRIED, get_args(ScoreName))


@dataclass(frozen=True)
class ArmRow:
    """What students of an arm are worth alone, on test clips and videos: means over seeds."""

    name: str
    students: int
    clip_accuracy: Estimate
    video_accuracy: Estimate
    difference: Estimate | None
    """In accuracy of videos, from those that learnt from labels alone."""
    ece: float
    nll: float
    kl: float
    parameters: int
    seconds: float


@dataclass(frozen=True)
class PolicyRow:
    """``may_cost`` is what it was calibrated for, None where nothing was. ``over_uniform`` is in accuracy, over the
    best of uniform-k that costs as much at least."""

    name: str
    may_cost: float | None
    over: Over


@dataclass(frozen=True)
class Claim:
    """What the seed claims, of this set: what is calibrated for a share of the dense cost loses nothing; the cheapest
    policy that is calibrated to lose nothing; and what a policy gains over uniform sampling that costs as much or
    more."""

    within: Over | None
    no_worse: Over | None
    beside_uniform: tuple[float, Over, Over, Estimate] | None
    """The share that it may cost, the calibrated policy, the uniform-k that costs as much or a little more, and the
    difference."""


@dataclass(frozen=True)
class SetEvidence:
    recipe: Recipe
    arms: tuple[ArmRow, ...]
    left_out: dict[str, str]
    policies: tuple[PolicyRow, ...]
    claim: Claim
    auroc: tuple[Line, ...]
    videos: int
    groups: int
    clips: int

    @property
    def dense(self) -> Over:
        return self.policies[0].over


def gather(
    recipe: Recipe, folder: Path, out: Path, seeds: int, *, threads: int | None, jobs: int
) -> SetEvidence:
    """Train what is not there, calibrate, and read off."""
    arms = train_all(recipe, folder, out, seeds, threads=threads, jobs=jobs)
    say(f"{recipe.title}: policies")
    students = [Folds(tuple(Student(url, recipe.costs) for url in urls)) for urls in arms[DISTILLED].urls]
    policies = list(_policies(recipe, students))
    dense = policies[0].over
    say(f"{recipe.title}: scores")
    clips = [clips_of(folds.students) for folds in students]
    first: Came = dense.each_S[0]
    return SetEvidence(
        recipe,
        tuple(_arm_rows(recipe, arms)),
        {name: arm.why_not for name, arm in arms.items() if not arm.urls},
        tuple(policies),
        _claim(recipe, students, policies),
        tuple(ablation(clips, min(recipe.draws, _AUROC_DRAWS))),
        len(first.right_V),
        len(np.unique(first.group_V)),
        first.clips,
    )


# ---------------------------------------------------------------- students alone


def _arm_rows(recipe: Recipe, arms: dict[str, Arm]) -> Iterator[ArmRow]:
    found: dict[str, Held] = {
        name: held(arm.urls, like=arms[DISTILLED].urls) for name, arm in arms.items() if arm.urls
    }
    labels_alone = found.get("labels alone")
    for name, h in found.items():
        difference = None
        if labels_alone is not None and name != "labels alone":
            gap_V = h.video_right_SV.mean(axis=0) - labels_alone.video_right_SV.mean(axis=0)
            difference = metrics.mean_over_groups(gap_V, h.group_V, num_draws=recipe.draws)
        arm = arms[name]
        yield ArmRow(
            name,
            len(h.right_SN),
            metrics.mean_over_groups(h.right_SN.mean(axis=0), h.group_N, num_draws=recipe.draws),
            metrics.mean_over_groups(h.video_right_SV.mean(axis=0), h.group_V, num_draws=recipe.draws),
            difference,
            float(np.mean([metrics.ece(m, r > 0) for m, r in zip(h.msp_SN, h.right_SN, strict=True)])),
            float(h.nll_SN.mean()),
            float(h.kl_SN.mean()),
            arm.parameters,
            arm.seconds,
        )


# ---------------------------------------------------------------- divided between both


def _policies(recipe: Recipe, students: list[Folds]) -> Iterator[PolicyRow]:
    def row(row: Row, wish: Wish, may_cost: float | None) -> PolicyRow | None:
        found = [folds.calibrated(row, wish) for folds in students]
        if any(f is None for f in found):
            return None
        return PolicyRow(row.name, may_cost, Over(tuple(f for f in found if f is not None), recipe.draws))

    everything = Wish(max_cost=1.0)
    for alone in (Row("dense", ("dense",)), Row("student-alone", ("student-alone",))):
        if (made := row(alone, everything, None)) is not None:
            yield made
    for may_cost in recipe.may_cost:
        for each in ROWS:
            if (made := row(each, Wish(max_cost=may_cost), may_cost)) is not None:
                yield made
        chosen = row(CHOSEN, Wish(max_cost=may_cost), may_cost)
        if chosen is not None:
            yield chosen
        share = may_cost if chosen is None else chosen.over.share
        for kind in (GainOracle, LabelOracle):
            name = "gain oracle" if kind is GainOracle else "label oracle"
            yield PolicyRow(
                f"{name}, as many clips",
                may_cost,
                Over(tuple(folds.oracle(kind, share) for folds in students), recipe.draws),
            )


def _claim(recipe: Recipe, students: list[Folds], policies: list[PolicyRow]) -> Claim:
    tried = [folds.calibrated(CHOSEN, Wish(accuracy_drop=0.0)) for folds in students]
    no_worse = None
    if all(t is not None for t in tried):
        no_worse = Over(tuple(t for t in tried if t is not None), recipe.draws)
    ours = [p for p in policies if p.name == CHOSEN.name]
    within = next((p.over for p in ours if p.may_cost == recipe.claim_cost), None)
    uniform = [p.over for p in policies if p.name == "uniform-k"]
    pairs = [(p, u) for p in ours for u in uniform if u.ratio >= p.over.ratio]
    if not pairs:
        return Claim(within, no_worse, None)
    p, u = min(
        pairs, key=lambda pair: pair[1].ratio - pair[0].over.ratio
    )  # those that cost most nearly the same
    return Claim(within, no_worse, (p.may_cost or 1.0, p.over, u, p.over.over(u)))


# ---------------------------------------------------------------- as JSON


def to_json(found: SetEvidence) -> dict[str, Any]:
    """All numbers but for what training took."""
    uniform = found.claim.beside_uniform
    return {
        "title": found.recipe.title,
        "videos": found.videos,
        "groups": found.groups,
        "clips": found.clips,
        "students": [
            {
                "name": a.name,
                "students": a.students,
                "clip_accuracy": a.clip_accuracy.to_json(),
                "video_accuracy": a.video_accuracy.to_json(),
                "over_labels_alone": None if a.difference is None else a.difference.to_json(),
                "ece": round(a.ece, 6),
                "nll": round(a.nll, 6),
                "kl": round(a.kl, 6),
                "parameters": a.parameters,
            }
            for a in found.arms
        ],
        "left_out": found.left_out,
        "policies": [{"name": p.name, "may_cost": p.may_cost, **_over(p.over)} for p in found.policies],
        "within": None if found.claim.within is None else _over(found.claim.within),
        "no_worse": None if found.claim.no_worse is None else _over(found.claim.no_worse),
        "over_uniform": None
        if uniform is None
        else {
            "may_cost": uniform[0],
            "ours": _over(uniform[1]),
            "uniform": _over(uniform[2]),
            "difference": uniform[3].to_json(),
        },
        "auroc": [
            {"of": line.of, "score": line.score, **{q: e.to_json() for q, e in line.auroc.items()}}
            for line in found.auroc
        ],
    }


def _over(o: Over) -> dict[str, Any]:
    return {
        "students": o.students,
        "accuracy": o.accuracy.to_json(),
        "against_dense": o.gain.to_json(),
        "agreement": round(o.agreement, 6),
        "to_the_teacher": round(o.share, 6),
        "ratio": round(o.ratio, 6),
        "seconds": [round(s, 3) for s in o.seconds],
    }
