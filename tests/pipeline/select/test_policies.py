"""Policies: what they choose, and that it does not hang on what stands beside a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.budget import Budget, best_share, price_of
from pipeline.select.decision import Policy
from pipeline.select.known import GainOracle, LabelOracle
from pipeline.select.scores import SCORES, clip_scores, deferral
from pipeline.select.thresholds import ClipThreshold, VideoThreshold
from pipeline.select.top_k import RandomK, TopK, UniformK
from pipeline.select.video_part import VideoPart
from pipeline.select.whole import Audited, DenseTeacher, StudentAlone
from tests.pipeline.select.made_up import made_up, part_of, video_id

POLICIES: list[Policy] = [
    ClipThreshold("gain", 0.1),
    VideoThreshold("entropy", 1.0),
    VideoPart("margin", 0.2, 0.5),
    TopK("msp", 2),
    TopK("confidence", 2, floor=-0.5),
    UniformK(2),
    RandomK(2, seed=3),
    StudentAlone(),
    DenseTeacher(),
    Audited(ClipThreshold("margin", -0.2), 0.3),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_video_is_decided_on_by_itself(policy: Policy) -> None:
    scores = made_up().scores
    whole = policy.select(scores)
    assert not policy.couples_videos
    for videos in ([3], [0, 7, 8, 31], list(range(20, 40))):
        part, rows = part_of(scores, videos)
        alone = policy.select(part)
        assert np.array_equal(alone.teacher_N, whole.teacher_N[rows])
        assert np.array_equal(alone.student_N, whole.student_N[rows])


def test_a_budget_couples_videos() -> None:
    scores = made_up().scores
    part, rows = part_of(scores, [3, 4, 5])
    budget = Budget("gain", 0.2)
    assert not np.array_equal(budget.select(part).teacher_N, budget.select(scores).teacher_N[rows])
    assert budget.couples_videos and Audited(budget, 0.1).couples_videos


def test_rows_may_come_in_any_order() -> None:
    rng = np.random.default_rng(0)
    ids, starts = [video_id(i // 3) for i in range(12)], np.arange(12) % 3 * 1000
    logits = rng.normal(size=(12, 3)).astype(np.float32)
    own, teacher = rng.random((2, 12)).astype(np.float32)
    first = clip_scores(ids, starts, starts + 1000, logits, own, teacher)
    mixed = rng.permutation(12)
    second = clip_scores(
        [ids[i] for i in mixed],
        starts[mixed],
        starts[mixed] + 1000,
        logits[mixed],
        own[mixed],
        teacher[mixed],
    )
    for name in (
        "video_N",
        "start_us_N",
        "end_us_N",
        "hash_V",
        "probs_NK",
        "student_right_N",
        "teacher_right_N",
    ):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.ids_V == tuple(sorted(set(ids)))
    twice = [*range(12), 0]
    with pytest.raises(ValueError, match="comes twice"):
        clip_scores(
            [ids[i] for i in twice], starts[twice], starts[twice], logits[twice], own[twice], teacher[twice]
        )
    with pytest.raises(ValueError, match="no clips"):
        clip_scores([], starts[:0], starts[:0], logits[:0], own[:0], teacher[:0])


@pytest.mark.parametrize("name", SCORES)
def test_thresholds_reach_from_none_to_all_and_grow(name: str) -> None:
    scores = made_up().scores
    before = np.zeros(len(scores), bool)
    for threshold in (np.inf, *np.quantile(deferral(scores, name), [0.9, 0.5, 0.1]), -np.inf):
        chosen = ClipThreshold(name, threshold).select(scores).teacher_N
        assert (before <= chosen).all()
        before = chosen
    assert before.all() and not ClipThreshold(name, np.inf).select(scores).teacher_N.any()


def test_a_video_goes_to_the_teacher_by_its_mean() -> None:
    scores = made_up().scores
    value, v = deferral(scores, "entropy"), scores.video_N
    chosen = VideoThreshold("entropy", 1.0).select(scores).teacher_N
    expected = np.array([value[v == i].mean() > 1.0 for i in range(scores.num_videos)])
    assert 0 < expected.sum() < len(expected) and np.array_equal(chosen, expected[v])


def test_scores_say_who_wants_the_teacher() -> None:
    scores = made_up().scores
    assert deferral(scores, "msp").argmax() == scores.probs_NK.max(axis=1).argmin()
    gain = deferral(scores, "gain")
    assert gain == pytest.approx(scores.teacher_right_N.astype(float) - scores.student_right_N)
    assert deferral(scores, "confidence").argmax() == scores.student_right_N.argmin()
    assert deferral(scores, "entropy").max() <= np.log(4) + 1e-6
    with pytest.raises(ValueError, match="no score 'luck'"):
        deferral(scores, "luck")


@given(st.integers(1, 12), st.integers(0, 99))
def test_k_clips_of_each_video(k: int, seed: int) -> None:
    scores = made_up(seed=seed).scores
    size_V = np.bincount(scores.video_N)
    for policy in (TopK("msp", k), UniformK(k), RandomK(k, seed)):
        count_V = np.bincount(scores.video_N, policy.select(scores).teacher_N)
        assert np.array_equal(count_V, np.minimum(k, size_V)), policy
    value = deferral(scores, "msp")
    chosen = TopK("msp", k).select(scores).teacher_N
    for v in range(scores.num_videos):
        mine = scores.video_N == v
        if (mine & ~chosen).any():
            assert value[mine & chosen].min() >= value[mine & ~chosen].max()


def test_uniform_clips_lie_at_the_middles_of_equal_parts() -> None:
    ids, starts = [video_id(0)] * 10, np.arange(10) * 1000
    scores = clip_scores(ids, starts, starts, np.zeros((10, 2), np.float32), *np.zeros((2, 10), np.float32))
    for k, places in ((1, [5]), (2, [2, 7]), (3, [1, 5, 8]), (10, list(range(10)))):
        assert np.flatnonzero(UniformK(k).select(scores).teacher_N).tolist() == places


def test_random_clips_are_drawn_with_the_chance_they_say() -> None:
    scores = made_up(num_videos=6, most_clips=5).scores
    drawn = np.mean([RandomK(2, seed).select(scores).teacher_N for seed in range(3000)], axis=0)
    said = RandomK(2).select(scores).inclusion_N
    assert said is not None and drawn == pytest.approx(said, abs=0.035)


def test_audits_draw_whole_videos_by_their_names() -> None:
    scores = made_up(num_videos=2000, most_clips=3).scores
    audit = Audited(StudentAlone(), 0.25, seed=1)
    share_V = np.bincount(scores.video_N, audit.select(scores).teacher_N) / np.bincount(scores.video_N)
    assert set(share_V) == {0.0, 1.0} and share_V.mean() == pytest.approx(0.25, abs=0.04)
    other = Audited(StudentAlone(), 0.25, seed=2).drawn(scores)
    assert (other & audit.drawn(scores)).mean() == pytest.approx(0.0625, abs=0.03)


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_budget_is_met_exactly(part: int, whole: int) -> None:
    value = np.random.default_rng(whole).normal(size=whole).round(1)  # with ties
    count = min(part, whole)
    chosen = best_share(value, count / whole)
    assert chosen.sum() == count
    if 0 < count < whole:
        assert value[chosen].min() >= value[~chosen].max()
        price = price_of(value, count / whole)
        assert not np.isin(price, value) and (value > price).sum() <= count
        assert (value > price).sum() == (value > value[~chosen].max()).sum()
    with pytest.raises(ValueError, match="0 to 1"):
        best_share(value, 1.01)


def test_what_a_share_of_clips_is_does_not_hang_on_how_it_is_written() -> None:
    assert best_share(np.arange(100.0), 0.29).sum() == 29
    assert best_share(np.arange(10.0), 0.99).sum() == 9
    assert price_of(np.arange(4.0), 0.0) == np.inf and price_of(np.arange(4.0), 1.0) == -np.inf


def test_oracles_spend_where_it_pays() -> None:
    known = made_up(num_videos=100)
    share = 0.2
    gains = {
        name: float((known.teacher_right_N - known.student_right_N)[decision.teacher_N].sum())
        for name, decision in {
            "gain oracle": GainOracle(share).select(known),
            "label oracle": LabelOracle(share).select(known),
            "random": RandomK(1).select(known.scores),
        }.items()
    }
    assert gains["gain oracle"] >= gains["label oracle"] > gains["random"]
    without = replace(known, label_N=np.full(len(known.label_N), -1))
    assert not without.teacher_right_N.any() and not without.student_right_N.any()


def test_of_a_video_in_doubt_the_part_where_the_teacher_is_likeliest_right() -> None:
    scores = made_up().scores
    policy = VideoPart("entropy", 0.3, 0.4, price=1.0)
    asked_N = policy.select(scores).teacher_N
    entropy_N = deferral(scores, "entropy")
    asked = 0
    for v in range(scores.num_videos):
        mine = np.flatnonzero(scores.video_N == v)
        count = int(np.ceil(0.4 * len(mine)))
        in_doubt = entropy_N[mine].mean() / count > 0.3
        assert asked_N[mine].sum() == (count if in_doubt else 0)
        if in_doubt and count < len(mine):
            asked += 1
            right_N = scores.teacher_right_N[mine]
            assert right_N[asked_N[mine]].min() >= right_N[~asked_N[mine]].max()
    assert asked > 3
    everything = VideoPart("entropy", -1.0, 1.0).select(scores)
    assert everything.teacher_N.all()
