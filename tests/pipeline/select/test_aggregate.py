"""A word on each video from the answers about its clips."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.select.aggregate import (
    AGGREGATIONS,
    EXACT_WHEN_ALL_DEFERRED,
    Answers,
    control_variate,
    video_labels,
)
from pipeline.select.decision import Decision, deferring
from pipeline.select.known import Known
from pipeline.select.thresholds import ClipThreshold
from pipeline.select.top_k import RandomK, UniformK
from tests.pipeline.select.made_up import made_up


def answers_of(known: Known, decision: Decision) -> Answers:
    """With nonsense where nobody was asked."""
    student, teacher = known.scores.probs_NK.copy(), known.teacher_NK.copy()
    student[~decision.student_N], teacher[~decision.teacher_N] = np.nan, np.nan
    return Answers(known.scores, decision, student, teacher)


def means(known: Known, value_NX: np.ndarray) -> np.ndarray:
    v = known.scores.video_N
    return np.array([value_NX[v == i].mean(axis=0) for i in range(known.scores.num_videos)])


@pytest.mark.parametrize("name", [n for n in AGGREGATIONS if n != "control-variate"])
def test_who_was_not_asked_has_no_say(name: str) -> None:
    known = made_up()
    for decision in (ClipThreshold("gain", 0.1).select(known.scores), UniformK(2).select(known.scores)):
        word_VK = AGGREGATIONS[name](answers_of(known, decision))
        assert np.isfinite(word_VK).all() and word_VK.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_only_some_give_the_dense_teacher_where_it_is_asked_about_all(name: str) -> None:
    known = made_up(num_videos=200)
    everything = np.ones(len(known.scores), bool)
    decision = Decision(everything, everything, np.ones(len(everything)))
    word_VK = AGGREGATIONS[name](answers_of(known, decision))
    exact = np.array_equal(video_labels(word_VK), video_labels(means(known, known.teacher_NK)))
    assert exact == (name in EXACT_WHEN_ALL_DEFERRED or name == "control-variate")


def test_replaced_and_weighted_means() -> None:
    known = made_up()
    decision = ClipThreshold("gain", 0.1).select(known.scores)
    asked_N1 = decision.teacher_N[:, None]
    said = np.where(asked_N1, known.teacher_NK, known.scores.probs_NK)
    answers = answers_of(known, decision)
    assert AGGREGATIONS["replace-mean"](answers) == pytest.approx(means(known, said))
    sure = np.where(decision.teacher_N, known.scores.teacher_right_N, known.scores.student_right_N)
    weight_N1 = sure[:, None].astype(float)
    expected = means(known, said * weight_N1) / means(known, weight_N1)
    assert AGGREGATIONS["confidence-weighted"](answers) == pytest.approx(expected)
    asked_V = np.bincount(known.scores.video_N, decision.teacher_N) > 0
    alone = AGGREGATIONS["teacher-only"](answers)
    assert alone[~asked_V] == pytest.approx(means(known, known.scores.probs_NK)[~asked_V])
    first = int(np.flatnonzero(asked_V)[0])
    mine = (known.scores.video_N == first) & decision.teacher_N
    assert alone[first] == pytest.approx(known.teacher_NK[mine].mean(axis=0))


def test_a_log_pool_is_a_geometric_mean() -> None:
    known = made_up(num_videos=1, most_clips=1)
    p, q = known.scores.probs_NK[0], known.teacher_NK[0]
    expected = np.sqrt(p * q) / np.sqrt(p * q).sum()
    pooled = AGGREGATIONS["log-pool"](answers_of(known, deferring(np.array([True]))))
    assert pooled[0] == pytest.approx(expected, rel=1e-5)


def test_a_control_variate_is_right_on_average() -> None:
    known = made_up(num_videos=5, most_clips=6)
    every = np.ones(len(known.scores), bool)
    draws = []
    for seed in range(4000):
        drawn = RandomK(2, seed).select(known.scores)
        both = Decision(every, drawn.teacher_N, drawn.inclusion_N)
        draws.append(control_variate(answers_of(known, both)))
    assert np.mean(draws, axis=0) == pytest.approx(means(known, known.teacher_NK), abs=0.02)
    with pytest.raises(ValueError, match="asked at random"):
        control_variate(answers_of(known, ClipThreshold("gain", 0.1).select(known.scores)))
    with pytest.raises(ValueError, match="on all clips"):
        control_variate(answers_of(known, RandomK(2).select(known.scores)))
