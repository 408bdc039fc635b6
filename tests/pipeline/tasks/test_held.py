"""Frames that wait: in memory up to a bound, then in a file."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from pipeline.tasks.held import HeldFrames
from schemas.errors import RetryableError


def frames(seed: int, shape: tuple[int, ...] = (1, 2, 4, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("bound", [1, 300, 10_000])
def test_what_is_taken_is_what_was_put(bound: int) -> None:
    held = HeldFrames(bound)
    numbers = {i: held.put(frames(i, (1, 2, 4, 6 + i % 3, 3))) for i in range(12)}
    assert held.bytes_here <= max(bound, frames(0).nbytes) and (held.bytes_there > 0) == (bound < 10_000)
    for i in (3, 0, 11):
        held.drop(numbers[i])
    for i in (7, 1, 2, 10, 4, 5, 6, 8, 9):
        assert np.array_equal(held.take(numbers[i]), frames(i, (1, 2, 4, 6 + i % 3, 3)))
    assert held.bytes_here == held.bytes_there == 0
    again = held.put(frames(1)), held.put(frames(2)), held.put(frames(3))
    assert np.array_equal(held.take(again[2]), frames(3))
    held.close()
    assert held.bytes_here == held.bytes_there == 0


def test_slices_of_larger_arrays_are_written_as_they_are_seen() -> None:
    held = HeldFrames(1)
    whole = frames(0, (2, 2, 8, 8, 3))
    held.put(frames(1))
    number = held.put(whole[1:, :, ::2, 1:5])
    assert np.array_equal(held.take(number), whole[1:, :, ::2, 1:5])


def test_a_full_disk_is_the_machines_fault_and_not_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.tasks.held.tempfile.TemporaryFile", full)
    held = HeldFrames(10)
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    held.put(frames)  # the first one is held in any case
    with pytest.raises(RetryableError, match="No space left"):
        held.put(frames)
