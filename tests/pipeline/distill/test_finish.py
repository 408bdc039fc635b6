"""After training: what long predictions are judged by, which rows the heads may see, and who may train at a time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.distill.alone import alone_in
from pipeline.distill.finish import _some_groups, _what_heads_learn, rows_for_heads
from pipeline.distill.splits import Role
from schemas.errors import RetryableError, SettingsError


def test_long_predictions_are_judged_by_whole_groups(tmp_path: Path) -> None:
    groups = np.random.default_rng(0).integers(0, 2**64 - 1, 50, dtype=np.uint64)
    rows = pa.table({"group": np.repeat(groups, 7), "x": np.arange(350)})
    pq.write_table(rows, tmp_path / "p.parquet")
    some = _some_groups(tmp_path / "p.parquet", 100)
    assert some.num_rows == 98
    assert set(np.unique(some["group"].to_numpy(), return_counts=True)[1].tolist()) == {7}
    assert _some_groups(tmp_path / "p.parquet", 3).num_rows == 7
    assert _some_groups(tmp_path / "p.parquet", 350).equals(rows)


def test_heads_see_the_calibration_split_alone() -> None:
    role_R = np.array([Role.TRAIN, Role.CALIBRATION, Role.CALIBRATION, Role.TEST, Role.NONE], np.int8)
    known_R = np.array([False, True, False, False, False])
    group_R = np.arange(5, dtype=np.uint64)
    assert rows_for_heads(role_R, known_R, group_R, 1.0).tolist() == [False, False, True, False, False]
    with pytest.raises(SettingsError, match="own training videos"):
        rows_for_heads(role_R, np.ones(5, np.bool_), group_R, 1.0)
    with pytest.raises(SettingsError, match="calibration split is empty"):
        rows_for_heads(np.zeros(5, np.int8), known_R, group_R, 1.0)


def test_heads_leave_whole_groups_to_others() -> None:
    group_R = np.repeat(np.random.default_rng(0).integers(0, 2**63, 40, dtype=np.uint64), 3)
    role_R, nobody = np.full(120, Role.CALIBRATION, np.int8), np.zeros(120, np.bool_)
    taken_R = rows_for_heads(role_R, nobody, group_R, 0.5)
    assert taken_R.sum() == 60
    assert not set(group_R[taken_R].tolist()) & set(group_R[~taken_R].tolist())
    assert rows_for_heads(role_R, nobody, group_R, 0.001).sum() == 3  # one group at least


@pytest.mark.parametrize(
    ("rows", "labels", "by_label"),
    [(1000, 1, False), (1000, 200, True), (60, 29, False), (60, 30, True), (5, 0, False)],
)
def test_a_few_labels_do_not_decide_what_is_right(rows: int, labels: int, by_label: bool) -> None:
    labelled_R = np.arange(rows) < labels
    found, rows_R = _what_heads_learn(np.ones(rows, np.bool_), labelled_R, 0)
    assert found == by_label
    assert rows_R.tolist() == (labelled_R if by_label else np.ones(rows, np.bool_)).tolist()


def _hold(folder: Path, held: object, leave: object) -> None:
    with alone_in(folder):
        held.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_one_process_at_a_time_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "work", held, leave))
    other.start()
    assert held.wait(30)
    with (
        pytest.raises(RetryableError, match="another process trains this student"),
        alone_in(tmp_path / "work"),
    ):
        pass
    other.kill()
    other.join()
    with alone_in(tmp_path / "work"):
        pass
