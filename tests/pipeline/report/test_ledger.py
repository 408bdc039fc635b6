"""What labels cost: sums, what the dense teacher would, money."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline.report.ledger import Ledger, Prices

LEDGER = Ledger(
    videos=4,
    clips=20,
    deferred=3,
    decode_s=5.0,
    dense_decode_s=10.0,
    student_s=1.0,
    teacher_s=6.0,
    audit_s=2.0,
    teacher_clip_s=2.0,
    teacher_clip_from="here",
)


def test_audits_are_no_cost_of_the_labels() -> None:
    assert LEDGER.seconds == 12.0
    assert LEDGER.dense_parts == {"decoding": 10.0, "teacher": 40.0} and LEDGER.dense_seconds == 50.0
    assert LEDGER.ratio == pytest.approx(0.24) and LEDGER.share == pytest.approx(0.15)
    assert sum(LEDGER.parts.values()) == 14.0


def test_money_is_of_hours_at_a_price_each() -> None:
    assert LEDGER.money is None and LEDGER.dense_money is None
    priced = replace(LEDGER, prices=Prices(decode=3600, student=7200, teacher=36000))
    assert priced.money == pytest.approx(5 + 2 + 60)
    assert priced.dense_money == pytest.approx(10 + 400)


def test_of_nothing_nothing_is_known() -> None:
    none = Ledger(0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "")
    assert math.isnan(none.ratio) and none.share == 0.0
    assert none.to_json()["ratio"] is None and none.to_json()["ratio_at_costs"] is None
