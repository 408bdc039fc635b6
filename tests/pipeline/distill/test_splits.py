"""Roles: no group is in two of them, named splits stand, and what is carved is carved out of train."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.splits import Role, roles
from pipeline.draws import folds
from schemas.errors import SettingsError


def groups(num_groups: int, rows_each: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(0, 2**63, num_groups).astype(np.uint64), rows_each)


@given(st.integers(0, 1000))
def test_groups_stay_together(seed: int) -> None:
    group_R = groups(60, 3, seed)
    role_R = roles((), np.full(180, -1), group_R, np.ones(180, np.bool_), seed=seed)
    for group in np.unique(group_R):
        assert len(set(role_R[group_R == group].tolist())) == 1


def test_without_splits_all_is_carved_in_about_the_shares() -> None:
    group_R = groups(4000, 1)
    role_R = roles((), np.full(4000, -1), group_R, np.ones(4000, np.bool_))
    share = {role: (role_R == role).mean() for role in Role}
    assert share[Role.VAL] == pytest.approx(0.1, abs=0.02)
    assert share[Role.CALIBRATION] == pytest.approx(0.2, abs=0.02)
    assert share[Role.TEST] == 0


def test_named_splits_stand_and_test_is_never_carved() -> None:
    group_R = groups(900, 1)
    names = ("train", "test", "val")
    split_R = np.arange(900) % 3
    role_R = roles(names, split_R, group_R, np.ones(900, np.bool_))
    assert (role_R[split_R == 1] == Role.TEST).all() and (role_R[split_R == 2] == Role.VAL).all()
    of_train = role_R[split_R == 0]
    assert set(of_train.tolist()) == {Role.TRAIN, Role.CALIBRATION}


def test_each_fold_is_the_test_once_and_groups_stay_together() -> None:
    group_R, split_R = groups(60, 2), np.zeros(120, int)
    tested = np.zeros(120, int)
    for fold in range(4):
        role_R = roles(("train",), split_R, group_R, np.ones(120, np.bool_), held_out=(fold, 4))
        tested += role_R == Role.TEST
        assert {Role.TRAIN, Role.VAL, Role.CALIBRATION, Role.TEST} == set(role_R.tolist())
        for group in np.unique(group_R):
            assert len(set(role_R[group_R == group].tolist())) == 1
    assert (tested == 1).all()


def test_no_few_groups_judge_the_students_of_all_folds() -> None:
    """What is carved out of train for val and calibration is another part with each fold."""
    group_R = groups(40, 1)
    carved = np.zeros((2, 40), int)
    for fold in range(10):
        role_R = roles((), np.full(40, -1), group_R, np.ones(40, np.bool_), held_out=(fold, 10))
        carved += [role_R == Role.VAL, role_R == Role.CALIBRATION]
    assert carved.max() <= 7 and (carved.sum(axis=0) == 0).sum() <= 5


@given(st.integers(3, 30), st.integers(0, 50))
def test_small_sets_hold_out_a_group_for_each_at_least(num_groups: int, seed: int) -> None:
    rows = 2 * num_groups
    role_R = roles((), np.full(rows, -1), groups(num_groups, 2, seed), np.ones(rows, np.bool_))
    assert {Role.TRAIN, Role.VAL, Role.CALIBRATION} == set(role_R.tolist())


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 groups of videos are too few to hold out val and calibration"):
        roles((), np.full(8, -1), groups(2, 4), np.ones(8, np.bool_))
    with pytest.raises(SettingsError, match="fold 3 of 5 holds no clip"):
        roles((), np.full(6, -1), groups(3, 2), np.ones(6, np.bool_), held_out=(3, 5))


def test_a_further_group_moves_few_of_the_others() -> None:
    group_R = groups(400, 1)
    before, after = (roles((), np.full(n, -1), group_R[:n], np.ones(n, np.bool_)) for n in (399, 400))
    assert (before != after[:399]).sum() <= 2


def test_folds_do_not_hang_on_rows_that_are_not_usable() -> None:
    group_R, usable = groups(40, 2), np.ones(80, np.bool_)
    plain = roles((), np.full(80, -1), group_R, usable, held_out=(1, 5))
    more = roles(
        (),
        np.full(82, -1),
        np.append(group_R, [np.uint64(0)] * 2),
        np.append(usable, [False] * 2),
        held_out=(1, 5),
    )
    assert (more[:80] == plain).all()


def test_rows_that_are_not_usable_have_no_role() -> None:
    usable = np.arange(100) % 2 == 0
    role_R = roles(("train", "val", "calibration"), np.zeros(100, int), groups(100, 1), usable)
    assert (role_R[~usable] == Role.NONE).all() and (role_R[usable] == Role.TRAIN).all()


def test_names_that_say_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="'fold3'"):
        roles(("train", "fold3"), np.zeros(4, int), groups(4, 1), np.ones(4, np.bool_))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(SettingsError, match="test"):
        roles(("test",), np.zeros(4, int), groups(4, 1), np.ones(4, np.bool_))


@given(st.integers(2, 8), st.integers(0, 100))
def test_folds_keep_groups_together_and_are_even(num_folds: int, seed: int) -> None:
    group_R = groups(40, 2, seed)
    fold_R = folds(group_R, num_folds, seed=seed)
    for group in np.unique(group_R):
        assert len(set(fold_R[group_R == group].tolist())) == 1
    counts = np.bincount(fold_R, minlength=num_folds)
    assert counts.max() - counts.min() <= 2


def test_rows_without_a_split_have_that_of_their_group() -> None:
    """Else a student would learn from one part of a group and be judged on the other."""
    group_R = groups(100, 3)
    split_R = np.repeat(np.arange(100) % 4, 3)
    split_R[::3] = -1  # one of each group says nothing
    split_R[-60:] = -1  # and of some groups none does
    names = ("train", "val", "calibration", "test")
    role_R = roles(names, split_R, group_R, np.ones(300, np.bool_))
    assert (role_R[:240] == np.repeat(np.arange(80) % 4, 3)).all()
    assert (role_R[240:] == Role.TRAIN).all()
    usable = np.ones(300, np.bool_)
    usable[1] = False
    assert roles(names, split_R, group_R, usable)[1] == Role.NONE
