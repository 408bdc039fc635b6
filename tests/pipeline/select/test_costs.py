"""What a decision costs, against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.budget import Budget
from pipeline.select.costs import spent
from pipeline.select.decision import Decision, deferring
from pipeline.select.scores import ClipScores, clip_scores
from pipeline.select.whole import DenseTeacher
from schemas.policy import CostSpec
from tests.pipeline.select.made_up import made_up, video_id

COSTS = CostSpec(seek=True, open=0.5, decode=0.1, key_frame_distance=4.0, student=0.01, teacher=1.0)


def video(num_clips: int) -> ClipScores:
    """One video of clips of 2 s."""
    start = np.arange(num_clips) * 2_000_000
    zeros = np.zeros((num_clips, 3), np.float32)
    return clip_scores([video_id(0)] * num_clips, start, start + 2_000_000, zeros, zeros[:, 0], zeros[:, 0])


def asked(num_clips: int, *places: int) -> np.ndarray:
    return np.isin(np.arange(num_clips), places)


def test_decoding_starts_at_the_last_keyframe_or_where_it_is() -> None:
    scores, nobody = video(6), asked(6)
    for places, seconds in (
        ((), 0.0),
        ((0,), 0.5 + 0.2),
        ((1,), 0.5 + 0.4),  # 2 to 4 s, from the keyframe at 0
        ((0, 1), 0.5 + 0.4),
        ((0, 5), 0.5 + 0.2 + 0.4),  # 10 to 12 s, from the keyframe at 8
        ((2, 3), 0.5 + 0.4),
        (range(6), 0.5 + 1.2),
    ):
        cost = spent(scores, Decision(nobody, asked(6, *places)), COSTS)
        assert cost.decode_V == pytest.approx([seconds]), places
        assert cost.teacher_V == pytest.approx([len(places)]) and cost.student_V == [0.0]


def test_one_decoding_serves_both_and_two_are_paid_twice() -> None:
    scores = video(6)
    decision = deferring(asked(6, 5))
    once = spent(scores, decision, COSTS)
    assert once.seconds == pytest.approx(0.5 + 1.2 + 0.06 + 1.0)
    twice = spent(scores, decision, COSTS.model_copy(update={"student_decode": 0.02}))
    assert twice.seconds == pytest.approx((0.5 + 0.24) + (0.5 + 0.4) + 0.06 + 1.0)


def test_money_is_hours_by_price() -> None:
    costs = COSTS.model_copy(update={"decode_price": 36.0, "student_price": 72.0, "teacher_price": 360.0})
    cost = spent(video(6), deferring(asked(6, 5)), costs)
    assert cost.money(costs) == pytest.approx(0.01 * (0.5 + 1.2) + 0.02 * 0.06 + 0.1 * 1.0)
    assert cost.money(COSTS) == 0.0


@given(st.integers(0, 50))
def test_asking_about_more_never_costs_less(seed: int) -> None:
    scores = made_up(seed=seed).scores
    rng = np.random.default_rng(seed)
    some = rng.random(len(scores)) < 0.3
    more = some | (rng.random(len(scores)) < 0.3)
    nobody = np.zeros(len(scores), bool)
    less = spent(scores, Decision(nobody, some), COSTS).seconds_V
    assert (spent(scores, Decision(nobody, more), COSTS).seconds_V >= less - 1e-9).all()
    assert (spent(scores, DenseTeacher().select(scores), COSTS).seconds_V >= less - 1e-9).all()


def test_everything_is_decoded_once_where_nobody_seeks() -> None:
    scores, costs = video(6), COSTS.model_copy(update={"seek": False})
    for decision in (deferring(asked(6)), deferring(asked(6, 5)), Decision(asked(6), asked(6, 0))):
        assert spent(scores, decision, costs).decode_V == pytest.approx([0.5 + 1.2])


def test_an_exact_budget_decodes_again_what_the_teacher_is_to_see() -> None:
    scores = made_up(8, most_clips=6, seed=2).scores
    costs = CostSpec(open=0.5, decode=0.1, student=0.0, teacher=0.0, key_frame_distance=2.0)
    decision = Budget("msp", 0.3).select(scores)
    once = spent(scores, Decision(decision.student_N, decision.teacher_N), costs).decode_V
    nobody = np.zeros(len(scores), np.bool_)
    seeking = costs.model_copy(update={"seek": True})
    again = spent(scores, Decision(nobody, decision.teacher_N), seeking).decode_V
    assert again.sum() > 0 and spent(scores, decision, costs).decode_V == pytest.approx(once + again)
    assert spent(scores, Budget("msp", 0.0).select(scores), costs).decode_V == pytest.approx(once)
