"""Simulations against counts done another way, and policies by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.select.aggregate import EXACT_WHEN_ALL_DEFERRED
from pipeline.select.coarse_to_fine import CoarseToFine
from pipeline.select.decision import deferring
from pipeline.select.known import Known
from pipeline.select.policies import BEYOND, grid_of, policy_of
from pipeline.select.simulate import Simulation, reference
from pipeline.select.thresholds import ClipThreshold, VideoThreshold
from pipeline.select.top_k import TopK
from pipeline.select.whole import DenseTeacher, StudentAlone
from schemas.policy import CostSpec, PolicySpec
from tests.pipeline.select.made_up import made_up

COSTS = CostSpec()
SPECS = [
    PolicySpec(kind="clip-threshold", threshold=0),
    PolicySpec(kind="video-threshold", threshold=0, score="entropy"),
    PolicySpec(kind="top-k", k=1, score="msp"),
    PolicySpec(kind="uniform-k", k=1),
    PolicySpec(kind="random-k", k=1),
    PolicySpec(kind="budget", share=0),
    PolicySpec(kind="coarse-to-fine", strides=(4, 2, 1), exit_margin=0),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.kind)
def test_a_grid_goes_from_most_to_least(spec: PolicySpec) -> None:
    scores = made_up(num_videos=300).scores
    members = grid_of(spec, scores)
    shares = [policy_of(m).select(scores).teacher_N.mean() for m in members]
    assert shares == sorted(shares, reverse=True) and len(members) > 5
    assert all(PolicySpec.model_validate_json(m.model_dump_json()) == m for m in members)
    if spec.kind not in ("coarse-to-fine", "random-k", "uniform-k", "top-k"):
        assert shares[0] == 1.0 and shares[-1] == 0.0


def test_thresholds_at_the_ends_are_beyond_all_scores() -> None:
    members = grid_of(PolicySpec(kind="clip-threshold", threshold=0), made_up().scores)
    assert (members[0].threshold, members[-1].threshold) == (-BEYOND, BEYOND)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "clip-threshold"},
        {"kind": "top-k"},
        {"kind": "budget", "share": 1.5},
        {"kind": "coarse-to-fine", "strides": (), "exit_margin": 0.5},
        {"kind": "coarse-to-fine", "strides": (1, 2), "exit_margin": 0.5},
        {"kind": "coarse-to-fine", "strides": (2, 0), "exit_margin": 0.5},
        {"kind": "luck"},
    ],
)
def test_a_policy_without_what_it_wants_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PolicySpec(**settings)


def by_hand(known: Known, teacher_N: np.ndarray) -> np.ndarray:
    said_NK = np.where(teacher_N[:, None], known.teacher_NK, known.scores.probs_NK).astype(np.float64)
    v = known.scores.video_N
    return np.array([said_NK[v == i].sum(axis=0).argmax() for i in range(known.scores.num_videos)])


def test_outcomes_are_what_counting_says() -> None:
    known = made_up(num_videos=200)
    sim = Simulation(known, COSTS, num_draws=200)
    decision = ClipThreshold("gain", 0.2).select(known.scores)
    found = sim.outcome(decision, "replace-mean")
    said = by_hand(known, decision.teacher_N)
    dense = by_hand(known, np.ones(len(known.scores), bool))
    label = np.array([known.label_N[known.scores.video_N == i][0] for i in range(200)])
    assert np.array_equal(sim.reference_V, dense) and np.array_equal(sim.label_V, label)
    assert found.share == decision.teacher_N.mean() and found.looked == 1.0
    assert found.agreement.value == pytest.approx((said == dense).mean())
    assert found.accuracy.value == pytest.approx((said == label).mean())
    assert found.gain.value == pytest.approx((said == label).mean() - (dense == label).mean())
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.ratio == found.spent.seconds / sim.dense.seconds


def test_intervals_are_those_of_a_bootstrap_over_groups() -> None:
    known = made_up(num_videos=200)
    sim = Simulation(known, COSTS, num_draws=4000)
    found = sim.outcome(StudentAlone().select(known.scores), "replace-mean").accuracy
    right_V = by_hand(known, np.zeros(len(known.scores), bool)) == sim.label_V
    of_group = right_V.reshape(-1, 2).mean(axis=1)  # two videos to a group
    assert found.high - found.low == pytest.approx(2 * 1.96 * of_group.std() / np.sqrt(100), rel=0.08)


def test_the_ends_are_the_dense_teacher_and_the_student() -> None:
    known = made_up(num_videos=200)
    sim = Simulation(known, COSTS)
    for aggregation in EXACT_WHEN_ALL_DEFERRED:
        found = sim.outcome(DenseTeacher().select(known.scores), aggregation)
        assert (found.agreement.value, found.gain.value, found.ratio, found.looked) == (1.0, 0.0, 1.0, 0.0)
    alone = sim.outcome(StudentAlone().select(known.scores), "replace-mean")
    assert alone.share == 0.0 and alone.agreement.value < 1.0 and alone.gain.value < 0.0


def test_videos_without_a_label_are_not_right_or_wrong() -> None:
    known = made_up(num_videos=100)
    some = known.scores.video_N < 50
    part = Simulation(replace(known, label_N=np.where(some, known.label_N, -1)), COSTS)
    alone = StudentAlone().select(known.scores)
    label = by_hand(known, alone.teacher_N)[:50] == Simulation(known, COSTS).label_V[:50]
    assert part.outcome(alone, "replace-mean").accuracy.value == pytest.approx(label.mean())
    none = Simulation(replace(known, label_N=np.full(len(some), -1)), COSTS)
    found = none.outcome(alone, "replace-mean")
    assert np.isnan(found.accuracy.value) and np.isnan(found.gain.low) and found.agreement.value < 1
    assert none.deferral_areas(["gain"]) == {}


def test_areas_of_deferral_curves() -> None:
    known = made_up(num_videos=300)
    gain_N = known.teacher_right_N - known.student_right_N
    told = replace(
        known.scores,
        teacher_right_N=(gain_N + 1).astype(np.float32),
        student_right_N=np.ones(len(gain_N), np.float32),
    )
    sim = Simulation(replace(known, scores=told), COSTS, num_draws=100)
    areas = sim.deferral_areas(["gain", "msp", "confidence"])
    raised, part, over = areas["gain"]
    assert part.value == pytest.approx(1.0) and over.low > 0  # the oracle itself
    assert areas["msp"][2].value == 0.0 and 0 < areas["msp"][1].value < 1
    assert areas["confidence"][0].value == pytest.approx(0.0, abs=1e-12)  # all alike: as good as chance
    best = np.sort(gain_N)[::-1]
    shares = (np.arange(len(best)) + 0.5) / len(best)
    curve = (np.cumsum(best) - best / 2) / len(best)
    assert raised.value == pytest.approx((curve - shares * best.mean()).mean(), abs=1e-3)


def test_the_teacher_has_a_temperature_of_its_own_where_aggregations_want_it() -> None:
    known = made_up(num_videos=100)
    flat = replace(known, tempered_NK=np.full_like(known.teacher_NK, 0.25))
    assert np.array_equal(reference(flat), reference(known))
    asked = deferring(np.ones(len(known.scores), bool))
    for name, heard in (("replace-mean", False), ("teacher-only", False), ("log-pool", True)):
        same = np.array_equal(
            Simulation(flat, COSTS).labels(asked, name), Simulation(known, COSTS).labels(asked, name)
        )
        assert same != heard


# ---------------------------------------------------------------- coarse to fine


@pytest.mark.parametrize(
    "then", [ClipThreshold("gain", 0.0), VideoThreshold("msp", -0.9), TopK("entropy", 2)]
)
@pytest.mark.parametrize("strides", [(4, 2, 1), (8, 2), (1,)])
def test_coarse_to_fine_goes_by_what_it_has_seen(strides: tuple[int, ...], then: object) -> None:
    known = made_up(num_videos=60, most_clips=20)
    policy = CoarseToFine(strides, 0.4, then)  # type: ignore[arg-type]
    decision = policy.select(known.scores)
    seen = decision.student_N
    assert not (decision.teacher_N & ~seen).any()
    assert np.bincount(known.scores.video_N, seen).min() >= 1
    noise = np.random.default_rng(1)
    scrambled = replace(
        known.scores,
        probs_NK=np.where(seen[:, None], known.scores.probs_NK, noise.random(known.teacher_NK.shape)).astype(
            np.float32
        ),
        student_right_N=np.where(seen, known.scores.student_right_N, 2.0).astype(np.float32),
        teacher_right_N=np.where(seen, known.scores.teacher_right_N, -2.0).astype(np.float32),
    )
    again = policy.select(scrambled)
    assert np.array_equal(again.student_N, seen) and np.array_equal(again.teacher_N, decision.teacher_N)


def test_coarse_to_fine_stops_where_it_is_sure() -> None:
    known = made_up(num_videos=200, most_clips=20)
    scores = known.scores
    all_clips = ClipThreshold("gain", -BEYOND)
    looked = [CoarseToFine((4, 2, 1), m, all_clips).select(scores) for m in (0.0, 0.3, 0.6, 1.01)]
    seen = [d.student_N.mean() for d in looked]
    assert seen == sorted(seen) and seen[0] < 0.4 and seen[-1] == 1.0
    assert looked[-1].teacher_N.all() and not looked[0].teacher_N.any()
    sure = CoarseToFine((4, 2, 1), 0.3, all_clips)
    decision = sure.select(scores)
    for v in range(200):
        mine = scores.video_N == v
        mean = scores.probs_NK[mine & decision.student_N].mean(axis=0)
        top = np.sort(mean)[::-1]
        assert decision.teacher_N[mine].any() == (top[0] - top[1] < 0.3)
