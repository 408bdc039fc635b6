"""A student's policy on a held-out split of its own: what it decides there, and what comes of it. No model is run.

Shapes: V videos.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.selecting.judged import StudentFolder, judged
from pipeline.select.context import Context
from pipeline.select.decision import Decision
from pipeline.select.joined import Judged
from pipeline.select.policies import policy_of
from pipeline.select.simulate import Outcome, Simulation
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64
from schemas.errors import SettingsError
from schemas.policy import PolicyDocument


@dataclass(frozen=True)
class Applied:
    """``judged`` are the words as they were said, before temperatures; ``sim`` has those of the policy."""

    judged: Judged
    sim: Simulation
    decision: Decision
    said_V: I64
    outcome: Outcome


def applied(
    student: StudentFolder,
    document: PolicyDocument,
    targets: ShardStore,
    split: str = "test",
    *,
    num_draws: int = 1000,
) -> Applied:
    """Videos that the teacher was trained on do not count.

    Raises
    ------
    SettingsError
        If there is no such split, or nothing is left of it.
    """
    on = judged(student, split, targets)
    on = on.where(~on.known_to_teacher_N)
    if not len(on):
        raise SettingsError(f"{student.url}: the teacher was trained on all videos of {split}")
    context = None if document.context is None else Context((document.context,))
    known = on.tempered(document.student_temperature, document.teacher_temperature).known(context)
    sim = Simulation(known, document.costs, num_draws=num_draws)
    decision = policy_of(document.policy).select(known.scores)
    said_V = sim.labels(decision, document.aggregation)
    return Applied(on, sim, decision, said_V, sim.outcome(decision, document.aggregation))
