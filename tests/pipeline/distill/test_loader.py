"""Batches: frames and targets of the same clip, shifted and mirrored together, in an order that can be sought in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.distill.loader import Augmentation, Batch, Loader, ahead
from pipeline.distill.snapshot import Snapshot, take_snapshot
from pipeline.distill.targets import TargetReader
from pipeline.store.mend import remove
from pipeline.store.shard_store import ShardStore
from schemas.errors import CorruptStoreError
from tests.pipeline.distill.frame_stores import FRAMES_EACH, colours_of, frame_store, shade
from tests.pipeline.store.stores import CLASSES, finish, new_store, video_id

NAMES = tuple(f"label{k}" for k in range(CLASSES))
PLAIN = Augmentation(shift=False)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Snapshot, ShardStore]:
    targets = new_store(str(tmp_path), videos=10, shard_clips=7, clips=4)
    finish(targets)
    frames = frame_store(str(tmp_path), range(10), shard_clips=9, clips=4)
    return take_snapshot(tmp_path / "snap", frames, [targets], classes=NAMES), frames


def loader_of(both: tuple[Snapshot, ShardStore]) -> Loader:
    return Loader(TargetReader(both[0]), both[1])


def epoch(
    both: tuple[Snapshot, ShardStore], augment: Augmentation, skip: int = 0, number: int = 0
) -> list[Batch]:
    chosen = both[0].usable_R
    batches = loader_of(both).epoch(
        chosen, seed=1, epoch=number, batch_size=6, augment=augment, skip_steps=skip
    )
    return list(batches)


def clip_at(snapshot: Snapshot, frames_THWC: np.ndarray) -> tuple[int, int]:
    """The row that the first frame is of, and its number there."""
    colour = colours_of(frames_THWC)[0]
    errors = [
        (np.abs(np.array(shade(name, int(row["start_us"]), t)) - colour).sum(), i, t)
        for i, (name, row) in enumerate(
            zip(snapshot.video_ids(np.arange(len(snapshot.rows_R))), snapshot.rows_R, strict=True)
        )
        for t in range(FRAMES_EACH)
    ]
    error, row, frame = min(errors)
    assert error < 10
    return row, frame


def test_frames_and_targets_are_of_the_same_clip(both: tuple[Snapshot, ShardStore]) -> None:
    snapshot, _ = both
    probs = TargetReader(snapshot).dense(np.arange(40))
    seen = []
    for batch in epoch(both, PLAIN):
        for n in range(len(batch.label_N)):
            row, frame = clip_at(snapshot, batch.frames_NTHWC[n])
            assert frame == 0 and batch.label_N[n] == snapshot.rows_R["label"][row]
            np.testing.assert_allclose(batch.probs_NK[n], probs[row])
            seen.append(row)
    assert len(set(seen)) == len(seen) == 36  # six whole batches of 40 rows


def test_a_shifted_window_runs_on_into_the_next_clip(both: tuple[Snapshot, ShardStore]) -> None:
    snapshot, _ = both
    probs = TargetReader(snapshot).dense(np.arange(40))
    offsets = []
    for batch in epoch(both, Augmentation(shift=True)):
        for n in range(len(batch.label_N)):
            frames = batch.frames_NTHWC[n]
            row, offset = clip_at(snapshot, frames)
            name = snapshot.video_ids(np.array([row]))[0]
            start = int(snapshot.rows_R["start_us"][row])
            expected = [shade(name, start, offset + t) for t in range(FRAMES_EACH)]
            assert np.abs(colours_of(frames) - np.array(expected)).max() < 6
            if offset:
                assert snapshot.rows_R["video"][row] == snapshot.rows_R["video"][row + 1]
                mean = (1 - offset / 4) * probs[row] + offset / 4 * probs[row + 1]
                np.testing.assert_allclose(batch.probs_NK[n], mean / mean.sum(), atol=1e-6)
            offsets.append(offset)
    assert {0, 1, 2, 3} == set(offsets)


def test_a_mirror_turns_frames_targets_and_labels(both: tuple[Snapshot, ShardStore]) -> None:
    plain = epoch(both, PLAIN)
    mirrored = epoch(both, Augmentation(shift=False, mirror_classes=(1, 0, 2)))
    changed = 0
    for before, after in zip(plain, mirrored, strict=True):
        for n in range(len(before.label_N)):
            if np.array_equal(after.probs_NK[n], before.probs_NK[n]):
                continue
            changed += 1
            assert after.probs_NK[n].tolist() == before.probs_NK[n][[1, 0, 2]].tolist()
            assert after.label_N[n] == (1, 0, 2)[before.label_N[n]]
            np.testing.assert_array_equal(after.frames_NTHWC[n], before.frames_NTHWC[n][:, :, ::-1])
    assert 8 < changed < 28


@pytest.mark.parametrize("skip", [1, 3, 5])
def test_an_epoch_goes_on_where_it_was(both: tuple[Snapshot, ShardStore], skip: int) -> None:
    whole, rest = epoch(both, Augmentation()), epoch(both, Augmentation(), skip=skip)
    assert [b.step for b in rest] == list(range(skip, 6))
    for expected, found in zip(whole[skip:], rest, strict=True):
        np.testing.assert_array_equal(found.frames_NTHWC, expected.frames_NTHWC)
        np.testing.assert_array_equal(found.probs_NK, expected.probs_NK)


def test_small_windows_change_the_order_but_not_what_is_seen(
    both: tuple[Snapshot, ShardStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.distill.loader.WINDOW_BYTES", 1)
    snapshot, _ = both
    rows = [clip_at(snapshot, f)[0] for b in epoch(both, PLAIN) for f in b.frames_NTHWC]
    assert len(set(rows)) == len(rows) == 36
    whole, rest = epoch(both, Augmentation()), epoch(both, Augmentation(), skip=4)
    np.testing.assert_array_equal(whole[5].frames_NTHWC, rest[1].frames_NTHWC)


def test_in_order_each_chosen_row_comes_once(both: tuple[Snapshot, ShardStore]) -> None:
    chosen = np.arange(40) % 3 == 0
    found = []
    for rows, batch in loader_of(both).in_order(chosen, 4):
        assert len(rows) == len(batch.frames_NTHWC) <= 4
        found += rows.tolist()
    assert found == np.flatnonzero(chosen).tolist()


def test_a_shard_that_was_rewritten_is_said(both: tuple[Snapshot, ShardStore]) -> None:
    remove(both[1], [video_id(0)])
    with pytest.raises(CorruptStoreError, match="rewritten since training began"):
        epoch(both, PLAIN)


def test_what_is_made_ahead_is_bounded_and_ends_with_its_reader() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    reader = ahead(numbers(), 3)
    assert next(reader) == 0
    threads = [t for t in threading.enumerate() if t.name == "locum-batches"]
    assert len(threads) == 1
    reader.close()  # type: ignore[attr-defined]
    assert not threads[0].is_alive() and len(made) <= 6


def test_what_is_raised_ahead_is_raised_here() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise CorruptStoreError("gone")

    reader = ahead(broken(), 2)
    assert next(reader) == 1
    with pytest.raises(CorruptStoreError, match="gone"):
        next(reader)
