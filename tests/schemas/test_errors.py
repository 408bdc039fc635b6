"""Exceptions: the type says the remedy, the exit code says the type, and a failure survives a process border."""

from __future__ import annotations

import copy
import pickle

import pytest

from schemas import errors
from schemas.errors import LocumError, VideoError

TREE = {
    "LocumError": (None, 1),
    "SettingsError": ("LocumError", 2),
    "ManifestError": ("SettingsError", 2),
    "ModelError": ("SettingsError", 2),
    "StoreError": ("LocumError", 4),
    "SpecMismatchError": ("StoreError", 4),
    "CorruptStoreError": ("StoreError", 4),
    "CircuitOpenError": ("LocumError", 5),
    "RetryableError": ("LocumError", 75),
}


def all_below(root: type[LocumError]) -> set[type[LocumError]]:
    return {root}.union(*(all_below(c) for c in root.__subclasses__() if c.__module__ == "schemas.errors"))


def test_the_tree_is_the_one_that_is_drawn_with_its_exit_codes() -> None:
    assert {c.__name__ for c in all_below(LocumError)} == TREE.keys()
    for name, (parent, code) in TREE.items():
        kind = getattr(errors, name)
        assert kind("x").exit_code == code
        assert parent is None or kind.__bases__ == (getattr(errors, parent),)
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("name", TREE)
def test_errors_of_ours_survive_pickling(name: str) -> None:
    kind = getattr(errors, name)
    again = pickle.loads(pickle.dumps(kind("what and why")))
    assert type(again) is kind and str(again) == "what and why"


def test_a_video_error_is_not_of_the_tree_and_keeps_all_it_says() -> None:
    assert not issubclass(VideoError, LocumError)
    error = VideoError("decode", "moov atom not found", permanent=True, cause="InvalidDataError")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (again.stage, str(again), again.permanent, again.cause) == (
            "decode",
            "moov atom not found",
            True,
            "InvalidDataError",
        )
    assert VideoError("open", "x", permanent=False).cause == "VideoError"
