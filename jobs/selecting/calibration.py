"""What a student is calibrated with: its word and its teacher's on held-out videos, and what scores come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from jobs.selecting.costs import costs_of
from jobs.selecting.judged import StudentFolder, judged, targets_of, temperatures, to_choose_on
from pipeline.select.context_fit import ContextFit
from pipeline.select.joined import Judged
from pipeline.select.simulate import NUM_DRAWS, Simulation
from pipeline.store.shard_store import ShardStore
from schemas.policy import IN_CONTEXT, CostFlags, ScoreName


@dataclass(frozen=True)
class Calibration:
    """What a student is calibrated with: ``sim`` has the videos that policies are chosen on, ``fit`` what scores in
    context come from, None where none is wanted."""

    student: StudentFolder
    targets: ShardStore
    calibration: Judged
    temperatures: tuple[float, float]
    fit: ContextFit | None
    sim: Simulation


def open_calibration(
    student: StudentFolder,
    *,
    scores: Sequence[ScoreName] = get_args(ScoreName),
    costs: CostFlags = CostFlags(),
    targets: str | None = None,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> Calibration:
    """What there is to calibrate a student with, for these scores; ``targets`` is where they are now, if not where they
    were; ``num_draws`` are for intervals, which choose nothing.

    Raises
    ------
    SettingsError
        If there are no held-out videos, or no targets any more.
    """
    store = targets_of(student, targets)
    calibration = judged(student, "calibration", store)
    temps = temperatures(student, calibration)
    choosing = to_choose_on(student, calibration, store).tempered(*temps)
    cost = costs_of(costs, student, store)
    fit = None
    if any(s.endswith(IN_CONTEXT) for s in scores):
        fit = ContextFit(choosing.known(), seed)
    known = choosing.known(None if fit is None else fit.for_these())
    sim = Simulation(known, cost, num_draws=num_draws, seed=seed)
    return Calibration(student, store, calibration, temps, fit, sim)
