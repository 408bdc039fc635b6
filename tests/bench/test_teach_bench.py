"""The arithmetic of `bench.teach`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.teach_peers.marks import BATCH, BEGIN, BUILD, DECODE, DONE, LOG, Mark, note, read_marks
from bench.teach_peers.measure import lower_bound, median, paired_ratios, steady_rate, work_rate


def test_the_steady_rate_leaves_out_the_first_tenth_and_whatever_came_before_it() -> None:
    batches = [Mark(100.0 + i, 8, BATCH) for i in range(10)]
    assert steady_rate(batches) == pytest.approx(8.0)
    assert steady_rate([*batches, Mark(118.0, 0, DONE)]) == pytest.approx(72 / 18)


def test_there_is_no_steady_rate_of_one_batch_or_none() -> None:
    assert steady_rate([]) is None
    assert steady_rate([Mark(1.0, 8, BATCH), Mark(1.0, 0, DONE)]) is None


def test_the_work_rate_begins_with_the_first_work_or_with_the_barrier() -> None:
    marks = [Mark(0.0, 0, DECODE), Mark(4.0, 0, BUILD), Mark(5.0, 10, BATCH), Mark(10.0, 0, DONE)]
    assert work_rate(marks) == pytest.approx(1.0)
    assert work_rate([*marks, Mark(5.0, 0, BEGIN)]) == pytest.approx(2.0)
    assert work_rate(marks[:-1]) is None


def test_ratios_are_of_rounds_that_have_both() -> None:
    assert paired_ratios([2.0, None, 6.0], [1.0, 1.0, 2.0]) == [2.0, 3.0]
    assert paired_ratios([1.0], [None]) == []


def test_the_lower_bound_lies_between_the_smallest_value_and_the_median() -> None:
    values = [0.90, 0.95, 0.85, 0.99, 0.93, 0.94, 0.91]
    bound = lower_bound(values)
    assert bound is not None and min(values) <= bound <= (median(values) or 0)
    assert lower_bound([3.0, 2.0]) == 2.0
    assert lower_bound([]) is None


def test_marks_are_read_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "marks"))
    note(BATCH, 3)
    note(DONE)
    assert [(mark.clips, mark.kind) for mark in read_marks(tmp_path / "marks")] == [(3, BATCH), (0, DONE)]
    assert read_marks(tmp_path / "none") == []
