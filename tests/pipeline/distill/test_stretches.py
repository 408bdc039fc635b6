"""Overlapping clips: each is the nearest stretch's, and an epoch shows one of each stretch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.snapshot_rows import ROW
from pipeline.distill.stretches import one_of_each, stretches
from schemas.clip import ClipSpec, clip_spans

LENGTH = ClipSpec(num_frames=4, seconds=2.0)
durations = st.lists(st.integers(300_000, 15_000_000), min_size=1, max_size=5)


def rows_of(durations_us: list[int], clip: ClipSpec, start_us: int = 0) -> np.ndarray:
    """Rows of videos of such lengths, cut so."""
    spans = [(v, s) for v, d in enumerate(durations_us) for s in clip_spans(start_us, start_us + d, clip)]
    rows = np.zeros(len(spans), ROW)
    for i, (v, span) in enumerate(spans):
        rows["video"][i], rows["start_us"][i], rows["end_us"][i] = v, span.start_us, span.end_us
    return rows


def cut_every(seconds: float) -> ClipSpec:
    return LENGTH.model_copy(update={"stride_seconds": seconds})


@given(durations, st.sampled_from([0.5, 1.0, 0.3]), st.integers(0, 10**7))
def test_stretches_are_those_of_clips_without_overlap(lengths: list[int], every: float, start: int) -> None:
    clip = cut_every(every)
    rows = rows_of(lengths, clip, start)
    found = stretches(rows, clip)
    for v in range(len(lengths)):
        mine = rows[rows["video"] == v]
        numbers = found[rows["video"] == v]
        alone = clip_spans(int(mine["start_us"].min()), int(mine["end_us"].max()), LENGTH)
        assert np.unique(numbers).tolist() == list(range(numbers.min(), numbers.min() + len(alone)))
        for row, number in zip(mine, numbers - numbers.min(), strict=True):
            gaps = [abs(int(row["start_us"]) - s.start_us) for s in alone]
            assert gaps[number] <= min(gaps) + 100_000  # what is left at the end and too short for a clip
    assert len(np.unique(found)) == found.max() + 1


@given(durations)
def test_without_overlap_each_clip_is_a_stretch(lengths: list[int]) -> None:
    found = stretches(rows_of(lengths, LENGTH), LENGTH)
    assert found.tolist() == list(range(len(found)))


@given(durations, st.integers(0, 99))
def test_an_epoch_has_one_of_the_chosen_of_each_stretch(lengths: list[int], seed: int) -> None:
    stretch = stretches(rows_of(lengths, cut_every(0.5)), cut_every(0.5))
    chosen = np.random.default_rng(seed).random(len(stretch)) < 0.7
    picked = one_of_each(stretch, chosen, seed=seed, epoch=3)
    assert not (picked & ~chosen).any()
    assert sorted(stretch[picked]) == np.unique(stretch[chosen]).tolist()
    np.testing.assert_array_equal(picked, one_of_each(stretch, chosen, seed=seed, epoch=3))


def test_over_epochs_every_clip_is_shown_about_as_often() -> None:
    stretch = np.repeat(np.arange(5), 4)
    every = np.ones(20, np.bool_)
    shown = sum(one_of_each(stretch, every, seed=1, epoch=e).astype(int) for e in range(400))
    assert shown.sum() == 2000 and 60 < shown.min() <= shown.max() < 140
