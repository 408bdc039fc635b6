"""What policies come to that were chosen on few videos: what was wished for beside what it is on the test split.

    python -m bench.few_videos STUDENT [--videos 40 80 150 300] [--draws 16]

Of a student's videos to choose on, so many are drawn by whole groups, again and again; temperatures and scores in
context are fitted on them, a policy is chosen, and judged on all test videos. Beside what `locum calibrate` chooses
stands what looks best on the drawn videos, taken at its word."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import get_args

import numpy as np

from jobs.calibrate import TRIED
from jobs.selecting.costs import costs_of
from jobs.selecting.judged import judged, open_student, targets_of, to_choose_on
from pipeline.select.calibrate import Chosen, best, tried
from pipeline.select.context_fit import ContextFit
from pipeline.select.joined import Judged
from pipeline.select.policies import bases_of, policy_of
from pipeline.select.simulate import Simulation
from pipeline.select.temperature import fit_temperature
from schemas.errors import SettingsError
from schemas.policy import CostFlags, CostSpec, ScoreName, Wish

WISHES = {
    "lose nothing": Wish(accuracy_drop=0.0),
    "lose half a point": Wish(accuracy_drop=0.005),
    "lose a point": Wish(accuracy_drop=0.01),
    "lose two points": Wish(accuracy_drop=0.02),
    "cost a quarter": Wish(max_cost=0.25),
    "cost 60 %": Wish(max_cost=0.6),
}
BASES = bases_of(TRIED, get_args(ScoreName))
HEAD = f"{'videos':>6s} {'wish':18s} {'chosen by':10s} {'against dense':>24s} {'cost':>7s}"


def at_its_word(found: list[Chosen], wish: Wish) -> Chosen:
    """The cheapest that seems to lose so little, the most accurate that costs so little."""
    if wish.accuracy_drop is not None:
        good = [c for c in found if c.outcome.gain.value >= -wish.accuracy_drop - 1e-9]
        return min(good, key=lambda c: (c.outcome.ratio, -c.outcome.gain.value))
    good = [c for c in found if c.outcome.ratio <= (wish.max_cost or 1.0)]
    if not good:
        raise SettingsError("nothing costs so little")
    return max(good, key=lambda c: (c.outcome.accuracy.value, -c.outcome.ratio))


def drawn(
    on: Judged, test: Judged, costs: CostSpec, num_groups: int, seed: int
) -> Iterator[tuple[str, str, float, float]]:
    """Wish, who chose, gain over the dense teacher on the test videos, and the ratio of costs there."""
    groups = np.random.default_rng(seed).permutation(np.unique(on.group_N))[:num_groups]
    part = on.where(np.isin(on.group_N, groups))
    temperatures = (
        fit_temperature(part.student_NK, part.label_N),
        fit_temperature(part.teacher_NK, part.label_N),
    )
    part = part.tempered(*temperatures)
    fit = ContextFit(part.known())
    choosing = Simulation(part.known(fit.for_these()), costs, num_draws=2)
    judging = Simulation(test.tempered(*temperatures).known(fit.for_others()), costs, num_draws=2)
    found = tried(choosing, BASES, None, Wish(max_cost=1.0))
    for name, wish in WISHES.items():
        try:
            both = {"its word": at_its_word(found, wish), "calibrate": best(choosing, found, wish)}
        except SettingsError:
            continue
        for who, chosen in both.items():
            decision = policy_of(chosen.spec).select(judging.known.scores)
            outcome = judging.outcome(decision, chosen.aggregation)
            yield name, who, outcome.gain.value, outcome.ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("student")
    parser.add_argument("--videos", type=int, nargs="+", default=[40, 80, 150, 300])
    parser.add_argument("--draws", type=int, default=16)
    args = parser.parse_args()
    student = open_student(args.student)
    targets = targets_of(student)
    costs = costs_of(CostFlags(), student, targets)
    on = to_choose_on(student, judged(student, "calibration", targets), targets)
    test = judged(student, "test", targets)
    test = test.where(~test.known_to_teacher_N)
    videos, groups = len(set(on.video_id_N)), len(np.unique(on.group_N))
    print(f"{videos} videos in {groups} groups to choose on, {len(set(test.video_id_N))} to judge by\n{HEAD}")
    for number in args.videos:
        num_groups = max(2, round(number * groups / videos))
        rows = [r for draw in range(args.draws) for r in drawn(on, test, costs, num_groups, draw)]
        for name in WISHES:
            for who in ("its word", "calibrate"):
                of_these = [r[2:] for r in rows if r[:2] == (name, who)]
                if not of_these:
                    continue
                gain, ratio = np.array(of_these).T
                low, high = np.quantile(gain, [0.1, 0.9])
                print(
                    f"{number:6d} {name:18s} {who:10s} {gain.mean():+.4f} [{low:+.4f}, {high:+.4f}] "
                    f"{ratio.mean():7.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
