"""What was lost: on which videos each number is, and that it is paired."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.compared import compared
from pipeline.report.quadrants import quadrants

GROUPS = np.arange(8) // 2


def test_differences_are_of_videos_of_which_truth_and_teacher_are_known() -> None:
    said = np.array([0, 1, 1, 0, 2, 2, -1, 0])
    truth = np.array([0, 1, 0, 0, -1, 2, 0, 0])
    dense = np.array([0, 0, 0, -1, 2, 2, 0, -1])
    found = compared(said, truth, dense, GROUPS)
    assert (found.labelled, found.beside, found.heard) == (6, 4, 5)  # the seventh has no label of ours
    assert found.right is not None and found.right.value == pytest.approx(5 / 6)
    assert found.right_beside is not None and found.right_beside.value == pytest.approx(3 / 4)
    assert found.dense is not None and found.dense.value == pytest.approx(3 / 4)
    assert found.difference is not None and found.difference.value == 0.0 and found.is_of_most
    assert found.difference.low < 0 < found.difference.high
    assert found.agreement is not None and found.agreement.value == pytest.approx(3 / 5)


def test_without_a_teacher_there_is_accuracy_and_without_labels_agreement() -> None:
    none = np.full(8, -1)
    said = np.array([0, 1, 1, 0, 2, 2, 1, 0])
    alone = compared(said, said % 2, none, GROUPS)
    assert alone.right is not None and alone.right.value == pytest.approx(6 / 8)
    assert alone.dense is None and alone.difference is None and alone.agreement is None
    heard = compared(said, none, said, GROUPS)
    assert heard.right is None and heard.agreement is not None and heard.agreement.value == 1.0
    assert compared(none, said, said, GROUPS).to_json()["right"] is None


def test_a_few_that_the_teacher_saw_do_not_speak_for_all() -> None:
    said, dense = np.zeros(100, np.int64), np.full(100, -1)
    dense[0] = 0
    found = compared(said, np.where(np.arange(100) > 0, 1, 0), dense, np.arange(100))
    assert found.right is not None and found.right.value == pytest.approx(0.01) and found.labelled == 100
    assert found.right_beside is not None and found.right_beside.value == 1.0 and not found.is_of_most


def test_the_same_errors_make_no_difference_whatever_groups_are_drawn() -> None:
    rng = np.random.default_rng(0)
    said, truth = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    found = compared(said, truth, said, np.arange(60) // 3).difference
    assert found is not None and (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_quadrants_are_all_clips_once() -> None:
    rng = np.random.default_rng(1)
    student, teacher, deferred = rng.random((3, 200)) < np.array([[0.6], [0.8], [0.3]])
    found = quadrants(student, teacher, deferred)
    assert sum(q.clips for q in found) == 200 and sum(q.share for q in found) == pytest.approx(1)
    assert sum(q.clips * q.deferred for q in found) == pytest.approx(deferred.sum())
    alone = next(q for q in found if q.teacher_right and not q.student_right)
    assert alone.clips == (teacher & ~student).sum()
