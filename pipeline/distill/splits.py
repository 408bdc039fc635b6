"""Who may learn from which row. Groups stay together: what is learnt from one video of a group is known of the others.

Where the manifest names splits they stand. What it does not name (val, calibration) is carved out of train, by
group, and never out of test. Without any split all of it is carved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipeline.draws import draws_of, folds
from schemas.arrays import U64
from schemas.errors import SettingsError


class Role(IntEnum):
    """What a row is for. ``NONE`` rows are of no use."""

    NONE = -1
    TRAIN = 0
    VAL = 1
    CALIBRATION = 2
    TEST = 3


NAMES: dict[str, Role] = {
    "train": Role.TRAIN,
    "training": Role.TRAIN,
    "val": Role.VAL,
    "valid": Role.VAL,
    "validation": Role.VAL,
    "dev": Role.VAL,
    "cal": Role.CALIBRATION,
    "calib": Role.CALIBRATION,
    "calibration": Role.CALIBRATION,
    "test": Role.TEST,
}
"""What splits are called."""

CARVED = ((Role.VAL, 0.1), (Role.CALIBRATION, 0.2))
"""Shares of the groups of train that are taken for what the manifest does not name."""


def role_of(split: str, split_map: Mapping[str, str]) -> Role | None:
    """What a split of the manifest is for; None where its name says nothing."""
    return NAMES.get(split_map.get(split, split).lower())


def roles(
    splits: Sequence[str],
    split_R: NDArray[np.integer],
    group_R: U64,
    usable_R: NDArray[np.bool_],
    split_map: Mapping[str, str] = MappingProxyType({}),
    *,
    held_out: tuple[int, int] | None = None,
    seed: int = 0,
) -> NDArray[np.int8]:
    """The `Role` of each row; (R,). Rows without a split have that of their group, or count as train where it has none;
    rows that are not usable have none.

    With ``held_out``, fold i of n, the manifest's splits do not count: test is that fold, and train all others. What is
    carved out of train is another part with each fold, so that no few groups judge the students of all of them.

    Raises
    ------
    SettingsError
        If a split has a name that says nothing, or there are too few groups to hold out what is to be.
    """
    carve = seed
    if held_out is not None:
        fold, num_folds = held_out
        fold_R = np.full(len(group_R), -1)
        fold_R[usable_R] = folds(group_R[usable_R], num_folds, seed=seed)
        if fold not in fold_R:
            raise SettingsError(
                f"fold {fold} of {num_folds} holds no clip: there are fewer groups than folds"
            )
        splits, split_R, split_map = ("test",), np.where(fold_R == fold, 0, -1), {}
        carve = seed + fold
    found = {name: role_of(name, split_map) for name in splits}
    strange = [name for name, role in found.items() if role is None]
    if strange:
        raise SettingsError(
            f"the split {strange[0]!r} of the manifest is none of {', '.join(NAMES)}: say with --split-map which it is"
        )
    of_split = np.array([*found.values(), Role.TRAIN], np.int8)
    role_R = np.where(usable_R, of_split[_as_their_groups(split_R, group_R)], np.int8(Role.NONE))
    if not (role_R == Role.TRAIN).any():
        raise SettingsError(
            f"no usable clip is in a split to train on; there are {', '.join(splits) or 'none'}"
        )
    wanted = [(role, share) for role, share in CARVED if role not in found.values()]
    groups = in_order_of_hash(group_R[role_R == Role.TRAIN], carve)
    if len(groups) <= len(wanted):
        names = " and ".join(role.name.lower() for role, _ in wanted)
        raise SettingsError(
            f"{len(groups)} groups of videos are too few to hold out {names} of them: name these splits in the manifest"
        )
    taken = 0
    for role, share in wanted:
        count = max(1, round(share * len(groups)))
        role_R[(role_R == Role.TRAIN) & np.isin(group_R, groups[taken : taken + count])] = role
        taken += count
    return role_R.astype(np.int8)


def _as_their_groups(split_R: NDArray[np.integer], group_R: U64) -> NDArray[np.int64]:
    """Splits of all rows, -1 where there is none: a row without one has that of its group's other rows, which have one
    split between them. (R,)"""
    out_R = np.asarray(split_R, np.int64).copy()
    says = out_R >= 0
    groups, first = np.unique(group_R[says], return_index=True)
    if len(groups) and not says.all():
        at_R = np.searchsorted(groups, group_R).clip(max=len(groups) - 1)
        follows = ~says & (groups[at_R] == group_R)
        out_R[follows] = out_R[says][first][at_R[follows]]
    return out_R


def in_order_of_hash(group_R: U64, seed: int) -> U64:
    """The groups there are, each once, in an order that follows from what they are called and the seed: further groups
    come in between."""
    groups = np.unique(group_R)
    return np.asarray(groups[np.argsort(draws_of(groups, seed))])
