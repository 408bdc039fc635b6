"""Rendering: one plan, one set of frames; the label stays out of how a file is written; noise never wraps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.demo.motion import CLASSES
from pipeline.demo.plan import FAMILIES, VideoPlan, plan_video
from pipeline.demo.render import render
from pipeline.demo.texture import HEADROOM, HIGHEST, LOWEST, background_HWC, noise_tile_HW3, sprite_HW4


def plan(index: int, label: str = "translate_right", **changes: object) -> VideoPlan:
    return plan_video(
        3, index, label=label, split="test", group_index=index // 3, seconds=(2.0, 3.0), **changes
    )  # type: ignore[arg-type]


def test_the_same_plan_gives_the_same_frames() -> None:
    once, again = list(render(plan(1))), list(render(plan(1)))
    assert len(once) == len(plan(1).times_us())
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    e = plan(1).encoding
    assert once[0].shape == (e.height, e.width, 3) and once[0].dtype == np.uint8


def test_something_moves() -> None:
    frames = list(render(plan(4)))
    changed = np.abs(frames[len(frames) // 2].astype(int) - frames[0]).max(-1) > 40
    assert 0.002 < changed.mean() < 0.6


def test_how_a_file_is_written_does_not_depend_on_its_class() -> None:
    for index in range(20):
        plans = [plan(index, label) for label in CLASSES]
        assert len({p.encoding for p in plans}) == 1
        assert len({p.name for p in plans}) == 1
        assert len({p.times_us().tobytes() for p in plans}) == 1


@pytest.mark.parametrize("variable", [False, True])
def test_times_ascend_and_fill_the_video(variable: bool) -> None:
    family = next(f for f in FAMILIES if f.variable_rate == variable)
    for index in range(10):
        p = plan(index, families=(family,))
        times = p.times_us()
        assert times[0] == 0 and (np.diff(times) > 0).all()
        assert times[-1] == pytest.approx((p.encoding.duration_s - 1 / p.encoding.rate) * 1e6, abs=0.7e6 / 15)
        assert (len(set(np.diff(times) // 1000)) > 3) == variable


def test_colours_keep_the_headroom_that_noise_takes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        back = background_HWC(rng, 60, 80)
        assert back.shape == (60, 80, 3) and back.min() >= LOWEST and back.max() <= HIGHEST
        assert back.std() > 3
    grain = noise_tile_HW3(rng, 50, 60, 9.0).view(np.int8)
    assert np.abs(grain).max() < HEADROOM <= min(LOWEST, 255 - HIGHEST)


def test_a_sprite_has_a_transparent_border_and_no_symmetry() -> None:
    for seed in range(12):
        sprite = sprite_HW4(np.random.default_rng(seed), 96)
        assert not sprite[[0, -1]].any() and not sprite[:, [0, -1]].any()
        assert (sprite[..., 3] > 200).mean() > 0.12
        turned = np.rot90(sprite[..., :3], 2).astype(int)
        assert np.abs(turned - sprite[..., :3]).mean() > 2


def test_an_object_may_leave_the_frame() -> None:
    away = [dataclasses.replace(e, center_x=9.0) for e in plan(0).events]
    frames = list(render(dataclasses.replace(plan(0), events=tuple(away))))
    assert len(frames) == len(plan(0).times_us())
