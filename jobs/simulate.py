"""Simulate: what every policy would have cost and got right, from what both models said already."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.selecting.costs import costs_of, mean_costs
from jobs.selecting.judged import SPLITS, judged, open_student, targets_of, temperatures, to_choose_on
from pipeline.metrics import Estimate
from pipeline.select.context import merged
from pipeline.select.context_fit import ContextFit
from pipeline.select.known import GainOracle, LabelOracle
from pipeline.select.policies import SHARES, WITHOUT_SCORE, bases_of, grid_of, policy_of
from pipeline.select.simulate import Outcome, Simulation
from schemas.errors import SettingsError
from schemas.policy import AGGREGATIONS, IN_CONTEXT, SCORES, CostFlags, CostSpec, PolicySpec

log = logging.getLogger("locum.select")

_DETERMINED = tuple(a for a in AGGREGATIONS if a != "control-variate")
_BY_SCORE = ("clip-threshold", "video-threshold", "video-part", "top-k", "budget")


@dataclass(frozen=True)
class SimulateOptions:
    """On which clips, at which costs, and for which scores and aggregations."""

    split: str = "test"
    targets: str | None = None
    costs: CostFlags = field(default_factory=CostFlags)
    scores: tuple[str, ...] = SCORES
    aggregations: tuple[str, ...] = AGGREGATIONS
    num_draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """A member of a policy, and what came of it."""

    policy: str
    score: str
    aggregation: str
    setting: str
    outcome: Outcome

    def row(self, costs: CostSpec) -> dict[str, Any]:
        o = self.outcome
        estimates = {"agreement": o.agreement, "accuracy": o.accuracy, "gain": o.gain}
        bounds = {
            f"{name}{end}": _number(getattr(e, part))
            for name, e in estimates.items()
            for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        return {
            "policy": self.policy,
            "score": self.score,
            "aggregation": self.aggregation,
            "setting": self.setting,
            "share": o.share,
            "looked": o.looked,
            "decode_s": float(o.spent.decode_V.sum()),
            "student_s": float(o.spent.student_V.sum()),
            "teacher_s": float(o.spent.teacher_V.sum()),
            "seconds": o.spent.seconds,
            "ratio": o.ratio,
            "money": o.spent.money(costs),
            **bounds,
        }


@dataclass(frozen=True)
class SimulateReport:
    """Points of the frontier, and how well each score tells where the teacher pays."""

    points: tuple[Point, ...]
    areas: dict[str, tuple[Estimate, Estimate, Estimate]]
    about: dict[str, Any]
    costs: CostSpec

    def table(self) -> pa.Table:
        return pa.Table.from_pylist([p.row(self.costs) for p in self.points])

    def to_json(self) -> dict[str, Any]:
        names = ("raised", "of_oracle", "over_msp")
        areas = {
            score: {
                n: [_number(x) for x in (e.value, e.low, e.high)] for n, e in zip(names, found, strict=True)
            }
            for score, found in self.areas.items()
        }
        points = [p.row(self.costs) for p in self.points]
        return {**self.about, "costs": self.costs.model_dump(), "scores": areas, "points": points}


def simulate(students: Sequence[str], options: SimulateOptions = SimulateOptions()) -> SimulateReport:
    """The accuracy and cost of every policy over the clips of a split, of one student or of those of several folds.

    On the calibration split only clips count on which the confidence heads were fitted: the others are kept for
    guarantees.

    Raises
    ------
    SettingsError
        If a student, its targets or the split are not there, or folds share videos.
    """
    if not students:
        raise SettingsError("no student was named")
    if options.split not in SPLITS:
        raise SettingsError(f"there is no split {options.split!r} to simulate on: {', '.join(SPLITS)}")
    parts, contexts, fitted, known_to_teacher, each = [], [], {}, 0, []
    scores = options.scores
    for url in students:
        student = open_student(url)
        store = targets_of(student, options.targets)
        each.append(costs_of(options.costs, student, store))
        calibration = judged(student, "calibration", store)
        temps = temperatures(student, calibration)
        if options.split == "calibration":
            on = calibration.where(calibration.fitted_N)
        else:
            on = judged(student, options.split, store)
        known_to_teacher += int(on.known_to_teacher_N.sum())
        on = on.where(~on.known_to_teacher_N)
        if not len(on):
            raise SettingsError(f"{student.url}: the teacher was trained on all videos of {options.split}")
        parts.append(on.tempered(*temps))
        if any(score.endswith(IN_CONTEXT) for score in scores):
            try:
                choosing = to_choose_on(student, calibration, store).tempered(*temps)
            except SettingsError as e:
                log.warning("scores in context are left out: %s", e)
                scores = tuple(score for score in scores if not score.endswith(IN_CONTEXT))
            else:
                fit = ContextFit(choosing.known(), options.seed)
                heads = fit.for_others() if options.split == "test" else fit.for_these()
                contexts.append((heads, list(dict.fromkeys(on.video_id_N))))
        fitted[student.url] = {"student_temperature": temps[0], "teacher_temperature": temps[1]}
    try:
        known = reduce(lambda a, b: a.and_(b), parts).known(merged(contexts) if contexts else None)
    except ValueError as e:
        raise SettingsError(f"students of several folds must have tested other videos each: {e}") from e
    costs = mean_costs(each)
    sim = Simulation(known, costs, num_draws=options.num_draws, seed=options.seed)
    size_V = known.scores.size_V
    about = {
        "students": fitted,
        "split": options.split,
        "clips": len(known.scores),
        "clips_left_out_as_known_to_the_teacher": known_to_teacher,
        "videos": known.scores.num_videos,
        "groups": len(np.unique(known.group_V)),
        "labelled_videos": int((sim.label_V >= 0).sum()),
        "clips_per_video": {
            "least": int(size_V.min()),
            "median": float(np.median(size_V)),
            "most": int(size_V.max()),
        },
        "dense_seconds": sim.dense.seconds,
    }
    points = tuple(_points(sim, scores, options.aggregations))
    return SimulateReport(points, sim.deferral_areas(scores), about, costs)


def _points(sim: Simulation, scores: Sequence[str], aggregations: Sequence[str]) -> Iterator[Point]:
    mean = "replace-mean"
    for base in bases_of(("dense", "student-alone", "uniform-k", "random-k"), scores):
        yield from _members(sim, base, [mean])
    determined = [a for a in aggregations if a in _DETERMINED]
    if "control-variate" in aggregations:
        (drawn,) = bases_of(("random-k",), scores)
        yield from _members(sim, drawn.model_copy(update={"with_student": True}), ["control-variate"])
    for base in bases_of((*_BY_SCORE, "coarse-to-fine"), scores):
        yield from _members(sim, base, determined)
    if (sim.known.label_N >= 0).any():
        for name, oracle in (("gain-oracle", GainOracle), ("label-oracle", LabelOracle)):
            for share in SHARES:
                decision = oracle(share).select(sim.known)
                yield Point(name, "", mean, f"share={share:g}", sim.outcome(decision, mean))


def _members(sim: Simulation, base: PolicySpec, aggregations: Sequence[str]) -> Iterator[Point]:
    for spec in grid_of(base, sim.known.scores):
        decision = policy_of(spec).select(sim.known.scores)
        score = "" if spec.kind in WITHOUT_SCORE else spec.score
        for aggregation in aggregations:
            yield Point(spec.kind, score, aggregation, _setting(spec), sim.outcome(decision, aggregation))


def _setting(spec: PolicySpec) -> str:
    said = spec.model_dump(exclude={"kind", "score"}, exclude_defaults=True)
    return " ".join(
        f"{k}={'/'.join(map(str, v)) if isinstance(v, tuple) else f'{v:.6g}'}" for k, v in said.items()
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
