"""Geometry: boxes stay inside, nothing is stretched that should not be, turns and mirrors are right."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.views import cut_views, layout
from schemas.targets import ViewSpec

SIZE = st.integers(8, 300)
SAR = st.sampled_from([Fraction(1), Fraction(5, 4), Fraction(64, 51), Fraction(8, 9)])


@given(SIZE, SIZE, SIZE, SIZE, SAR, st.sampled_from([0, 90, 180, -90]), st.sampled_from(["center", "three"]))
def test_crops_cover_and_keep_the_displayed_aspect(
    w: int, h: int, tw: int, th: int, sar: Fraction, rotation: int, crops: str
) -> None:
    view = ViewSpec(width=tw, height=th, fit="crop", crops=crops, flip=True)  # type: ignore[arg-type]
    plan = layout(w, h, sar, rotation, view)
    sideways = rotation % 180 != 0
    shown = (plan.scaled_height, plan.scaled_width) if sideways else (plan.scaled_width, plan.scaled_height)
    display = (h, w * sar) if sideways else (w * sar, h)
    assert shown[0] >= tw and shown[1] >= th and (shown[0] == tw or shown[1] == th)
    scale = max(tw / display[0], th / display[1])
    assert abs(shown[0] - display[0] * scale) <= 1 and abs(shown[1] - display[1] * scale) <= 1
    for left, top in plan.boxes:
        assert 0 <= left <= shown[0] - tw and 0 <= top <= shown[1] - th
    frame = np.zeros((plan.scaled_height, plan.scaled_width, 3), np.uint8)
    assert cut_views(frame, plan).shape == (view.num_views, th, tw, 3)


def test_three_crops_run_along_the_longer_side() -> None:
    wide = layout(200, 100, Fraction(1), 0, ViewSpec(width=50, height=50, fit="crop", crops="three"))
    assert wide.boxes == ((0, 0), (25, 0), (50, 0))
    tall = layout(100, 200, Fraction(1), 0, ViewSpec(width=50, height=50, fit="crop", crops="three"))
    assert tall.boxes == ((0, 0), (0, 25), (0, 50))


def test_squash_ignores_shape_and_turns() -> None:
    plan = layout(200, 100, Fraction(5, 4), 90, ViewSpec(width=40, height=30))
    assert (plan.scaled_width, plan.scaled_height, plan.quarter_turns) == (30, 40, 1)


def test_mirrors_follow_the_views_in_order() -> None:
    view = ViewSpec(width=8, height=8, fit="crop", crops="three", flip=True)
    plan = layout(16, 8, Fraction(1), 0, view)
    frame = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    views = cut_views(frame, plan)
    assert np.array_equal(views[0], frame[:, :8]) and np.array_equal(views[2], frame[:, 8:])
    for i in range(3):
        assert np.array_equal(views[3 + i], views[i][:, ::-1])
