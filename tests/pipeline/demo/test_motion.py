"""Motions: every class drives one coordinate, evenly and the right way; one frame does not tell the class."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo.motion import (
    CLASSES,
    DRIVES,
    MIRROR_X,
    MIRROR_Y,
    REVERSE,
    Event,
    event_paths,
    video_paths,
    wander_T,
)
from pipeline.demo.schedule import MIN_MOTION_SECONDS, draw_schedule


def event(label: str, seed: int = 0) -> Event:
    rng = np.random.default_rng(seed)
    return dataclasses.replace(draw_schedule(rng, label, 4.0, 0.667, 0.5)[0], label=label)


def motion_times(e: Event) -> np.ndarray:
    return np.linspace(e.begin_s, e.stop_s, 60)


@pytest.mark.parametrize(
    ("label", "name", "sign"),
    [
        ("translate_right", "x_T", 1),
        ("translate_left", "x_T", -1),
        ("translate_down", "y_T", 1),
        ("translate_up", "y_T", -1),
        ("approach", "size_T", 1),
        ("recede", "size_T", -1),
        ("rotate_cw", "angle_T", 1),
        ("rotate_ccw", "angle_T", -1),
    ],
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_one_coordinate_moves_one_way(label: str, name: str, sign: int, seed: int) -> None:
    e = event(label, seed)
    first, second = event_paths(e, motion_times(e))
    assert (np.diff(getattr(first, name)) * sign > 0).all()
    for other in {"x_T", "y_T", "size_T", "angle_T"} - {name}:
        assert np.ptp(getattr(first, other)) == pytest.approx(0, abs=1e-12)
    assert max(np.ptp(getattr(second, axis)) for axis in ("x_T", "y_T", "size_T", "angle_T")) < 1e-12


@pytest.mark.parametrize("label", sorted(REVERSE))
def test_backwards_is_the_opposite(label: str) -> None:
    e = event(label)
    t = motion_times(e)
    opposite = dataclasses.replace(e, label=REVERSE[label])
    for one, other in zip(event_paths(e, t), event_paths(opposite, t[::-1]), strict=True):
        for name in ("x_T", "y_T", "size_T", "angle_T"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)


def test_names_of_opposites_undo_themselves() -> None:
    for swap in (REVERSE, MIRROR_X, MIRROR_Y):
        assert all(swap[swap[label]] == label for label in swap)
        assert set(swap) <= set(CLASSES)


def test_objects_meet_and_part() -> None:
    e = event("collide")
    first, second = event_paths(e, motion_times(e))
    gap = np.hypot(first.x_T - second.x_T, first.y_T - second.y_T)
    assert gap.argmin() in (29, 30)
    assert (np.diff(gap[:30]) < 0).all() and (np.diff(gap[30:]) > 0).all()


def test_an_oscillation_goes_both_ways() -> None:
    e = event("oscillate")
    x = event_paths(e, motion_times(e))[0].x_T
    assert (np.diff(x) > 0).any() and (np.diff(x) < 0).any()


@given(seed=st.integers(0, 10_000), seconds=st.floats(1.0, 60.0), label=st.sampled_from(CLASSES))
@settings(max_examples=30, deadline=None)
def test_a_schedule_tiles_the_video(seed: int, seconds: float, label: str) -> None:
    events = draw_schedule(np.random.default_rng(seed), label, seconds, 0.667, 0.5)
    assert events[0].start_s == 0 and events[-1].end_s == pytest.approx(seconds)
    for a, b in itertools.pairwise(events):
        assert a.end_s == b.start_s
    for e in events:
        assert e.start_s <= e.begin_s < e.stop_s <= e.end_s + 1e-9
        assert e.stop_s - e.begin_s >= MIN_MOTION_SECONDS - 0.01
    t = np.linspace(0, seconds, 200, endpoint=False)
    for path in video_paths(events, t):
        assert path.x_T.shape == path.opacity_T.shape == (200,)
        assert ((path.opacity_T >= 0) & (path.opacity_T <= 1)).all()


def test_schedules_do_not_depend_on_the_class() -> None:
    drawn = [draw_schedule(np.random.default_rng(5), label, 30.0, 0.667, 0.5) for label in CLASSES]
    for events in drawn:
        assert [dataclasses.replace(e, label="") for e in events] == [
            dataclasses.replace(e, label="") for e in drawn[0]
        ]


@functools.cache
def snapshots(label: str) -> np.ndarray:
    rng, rows = np.random.default_rng(CLASSES.index(label)), []
    for _ in range(900):
        e = draw_schedule(rng, label, 4.0, 0.667, 0.5)[0]
        a, b = event_paths(e, rng.uniform(0, e.end_s, 1))
        gap = np.hypot(a.x_T - b.x_T, a.y_T - b.y_T)
        rows.append([a.x_T[0], a.y_T[0], a.size_T[0], a.angle_T[0], gap[0]])
    return np.array(rows)


@pytest.mark.parametrize("label", CLASSES[1:])
def test_one_frame_does_not_tell_the_class(label: str) -> None:
    """Each coordinate, at a random instant, is spread alike under every class."""
    mine, other = snapshots(label), snapshots("translate_left")
    for column in range(5):
        grid = np.sort(np.concatenate([mine[:, column], other[:, column]]))
        distance = np.abs(
            np.searchsorted(np.sort(mine[:, column]), grid, "right")
            - np.searchsorted(np.sort(other[:, column]), grid, "right")
        ).max() / len(mine)
        assert distance < 0.09, (DRIVES[label], column, distance)


def test_objects_are_seldom_out_of_sight() -> None:
    rng, seen = np.random.default_rng(3), []
    for label in CLASSES * 10:
        for e in draw_schedule(rng, label, 12.0, 0.667, 0.5):
            for path in event_paths(e, np.linspace(e.start_s, e.end_s, 20)):
                seen.append((abs(path.x_T) < 0.667) & (abs(path.y_T) < 0.5))
    assert np.mean(seen) > 0.95


def test_wandering_stays_near() -> None:
    drift = wander_T(np.random.default_rng(0), np.linspace(0, 60, 2000), 0.02, 0.9)
    assert np.abs(drift).max() <= 0.02 and np.ptp(drift) > 0.01


def test_what_cannot_be_shown_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 1 second"):
        draw_schedule(rng, "recede", 0.5, 0.667, 0.5)
    with pytest.raises(ValueError, match="jump"):
        draw_schedule(rng, "jump", 5.0, 0.667, 0.5)
