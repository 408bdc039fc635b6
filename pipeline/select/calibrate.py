"""Choosing a policy for a wish, and certifying one.

Choosing reads videos on which nothing of the student's class head was fitted; a certificate wants other videos still,
and a sequence of members that was fixed before it sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.select.aggregate import AGGREGATIONS, EXACT_WHEN_ALL_DEFERRED, Answers, video_labels
from pipeline.select.known import Known
from pipeline.select.learn_then_test import certified, groups_needed, one_of_each_group
from pipeline.select.optimism import cheapest_that_keeps
from pipeline.select.policies import grid_of, policy_of, usual_aggregation
from pipeline.select.simulate import Outcome, Simulation, reference
from schemas.arrays import Bools
from schemas.errors import SettingsError
from schemas.policy import AggregationName, PolicySpec, Wish

MOST_MEMBERS = 50
LEAST_GROUPS = 5
"""With labels, to choose a policy within a drop of accuracy on."""


@dataclass(frozen=True)
class Chosen:
    """A member of a policy, and what it came to."""

    spec: PolicySpec
    aggregation: AggregationName
    outcome: Outcome
    optimism: float | None = None
    """How much more accuracy such a choice promised than it came to, on average, on videos drawn anew; as much at least
    was asked beyond the wish. None where the wish is none for accuracy, or the dense teacher is what was chosen."""


@dataclass(frozen=True)
class Certified:
    """The last member that passed, and how."""

    member: int
    groups: int
    losses: int
    p_values: tuple[float, ...]


def choose(
    sim: Simulation, bases: Iterable[PolicySpec], aggregation: AggregationName | None, wish: Wish
) -> Chosen:
    """The member that meets a wish best: the most accurate within a budget or a cost, the cheapest within a drop. By
    agreement with the dense teacher where no video has a label.

    Of several that are as accurate, the middle one by cost: the cheapest of many is often lucky. Within a drop that is
    allowed for (`pipeline.select.optimism`), and it may be that the dense teacher alone is known to lose so little; so
    it is with fewer than five groups, of which nothing can be known.

    Raises
    ------
    SettingsError
        If none meets it.
    """
    _check_labels(sim, wish)
    return best(sim, tried(sim, bases, aggregation, wish), wish)


def tried(
    sim: Simulation, bases: Iterable[PolicySpec], aggregation: AggregationName | None, wish: Wish
) -> list[Chosen]:
    """What all members come to. Of a ``wish`` only a budget matters: members that spend just that are tried too."""
    found = []
    for base in [_fit_for(base, aggregation) for base in bases]:
        pooled = aggregation or usual_aggregation(base.kind)
        for spec in _members(base, sim.known, wish):
            decision = policy_of(spec).select(sim.known.scores)
            found.append(Chosen(spec, pooled, sim.outcome(decision, pooled)))
    return found


def best(sim: Simulation, found: Sequence[Chosen], wish: Wish) -> Chosen:
    """The one of what was tried that meets a wish best; see `choose`."""
    _check_labels(sim, wish)
    if wish.accuracy_drop is not None:
        return _within_drop(sim, found, wish.accuracy_drop)

    def worth(c: Chosen) -> float:
        return (c.outcome.accuracy if sim.is_labelled else c.outcome.agreement).value

    within = [c for c in found if _meets(c.outcome, wish)]
    if not within:
        least = min((c.outcome for c in found), key=lambda o: o.ratio)
        raise SettingsError(
            f"no policy that was tried meets it; the cheapest asks the teacher about {least.share:.1%} of clips, costs "
            f"{least.ratio:.1%} of the dense teacher, and agrees with it on {least.agreement.value:.1%} of videos"
        )
    most = max(map(worth, within))
    alike = {c.outcome.ratio: c for c in reversed(within) if worth(c) >= most - 1e-9}
    return alike[sorted(alike)[(len(alike) - 1) // 2]]


def _within_drop(sim: Simulation, found: Sequence[Chosen], drop: float) -> Chosen:
    dense = PolicySpec(kind="dense")
    outcome = sim.outcome(policy_of(dense).select(sim.known.scores), "replace-mean")
    safe = Chosen(dense, "replace-mean", outcome)
    if len(np.unique(sim.known.group_V[sim.label_V >= 0])) < LEAST_GROUPS:
        return safe
    gain_M = np.array([c.outcome.gain.value for c in found])
    ratio_M = np.array([c.outcome.ratio for c in found])
    redrawn = [sim.redrawn(policy_of(c.spec).select(sim.known.scores), c.aggregation) for c in found]
    gain_MB, ratio_MB = (np.array(values) for values in zip(*redrawn, strict=True))
    kept = cheapest_that_keeps(gain_M, ratio_M, gain_MB, ratio_MB, -drop)
    if kept is None or ratio_M[kept.member] > 1 - 1e-9:
        return safe
    return replace(found[kept.member], optimism=kept.optimism)


def _check_labels(sim: Simulation, wish: Wish) -> None:
    if wish.accuracy_drop is not None and not sim.is_labelled:
        raise SettingsError("--accuracy-drop needs labels, and few or none of the held-out videos have one")


def _fit_for(base: PolicySpec, aggregation: AggregationName | None) -> PolicySpec:
    """The policy, as the aggregation wants it. Raises SettingsError where it cannot be pooled so."""
    if aggregation != "control-variate":
        return base
    if base.kind != "random-k":
        raise SettingsError(
            f"a control variate wants a teacher that is asked at random: --policy random-k, not {base.kind}"
        )
    return base.model_copy(update={"with_student": True})


def sequence_of(base: PolicySpec, known: Known) -> list[PolicySpec]:
    """What is tested one after another: the dense teacher, then members of a policy that defer ever less."""
    if policy_of(base).couples_videos:
        raise SettingsError(
            f"a policy {base.kind!r} decides on a video by the others, and cannot be guaranteed: choose "
            "'clip-threshold', whose threshold is the price that such a budget comes to"
        )
    scores = known.scores
    cheaper = [m for m in grid_of(base, scores) if not policy_of(m).select(scores).teacher_N.all()]
    return [PolicySpec(kind="dense"), *cheaper][:MOST_MEMBERS]


def check_groups(known: Known, aggregation: str, alpha: float, delta: float) -> None:
    """Raises SettingsError where nothing could be certified, whatever the losses are: too few groups, or an aggregation
    that is not the dense teacher's where all is deferred."""
    if aggregation not in EXACT_WHEN_ALL_DEFERRED:
        raise SettingsError(
            f"pooled by {aggregation!r} no policy is the dense teacher where all is deferred, so none can be "
            f"guaranteed: choose {' or '.join(sorted(EXACT_WHEN_ALL_DEFERRED))}"
        )
    num_groups, needed = len(np.unique(known.group_V)), groups_needed(alpha, delta)
    if needed is None or num_groups < needed:
        raise SettingsError(
            f"{num_groups} groups of videos are left to certify on: a disagreement of {alpha:g} with confidence "
            f"{1 - delta:g} needs {needed} at least, without one that disagrees. Nothing can be guaranteed: label "
            "more held-out videos, or wish for less"
        )


def certify(
    known: Known, members: Sequence[PolicySpec], aggregation: str, *, alpha: float, delta: float, salt: int
) -> Certified:
    """How far along the members, the dense teacher first, the disagreement with it is known to be ``alpha`` at most, by
    one video of each group. See `check_groups` for what it takes."""
    chosen_G = one_of_each_group(known.group_V, known.scores.hash_V, salt)
    losses_MG = disagreements(known, members, aggregation)[:, chosen_G]
    count, p_values = certified(losses_MG, alpha, delta)
    if not count:
        raise ValueError("not even the dense teacher is certified: see check_groups")
    return Certified(count - 1, len(chosen_G), int(losses_MG[count - 1].sum()), p_values)


def disagreements(known: Known, members: Sequence[PolicySpec], aggregation: str) -> Bools:
    """Where each member's label of a video is not the dense teacher's; (M, V)."""
    dense_V = reference(known)
    rows = []
    for spec in members:
        decision = policy_of(spec).select(known.scores)
        answers = Answers(known.scores, decision, known.scores.probs_NK, known.teacher_NK)
        rows.append(video_labels(AGGREGATIONS[aggregation](answers)) != dense_V)
    return np.array(rows)


def _members(base: PolicySpec, known: Known, wish: Wish) -> list[PolicySpec]:
    if base.kind == "budget" and wish.budget is not None:
        return [base.model_copy(update={"share": wish.budget})]
    shares = () if wish.budget is None else (wish.budget,)
    return grid_of(base, known.scores, shares)


def _meets(outcome: Outcome, wish: Wish) -> bool:
    if wish.budget is not None:
        return outcome.share <= wish.budget
    return wish.max_cost is None or outcome.ratio <= wish.max_cost
