"""From a source frame's geometry to a model's input: one scaled size, a turn, and boxes to cut out.

Pure arithmetic and NumPy; scaling itself is the decoder's. A frame is scaled once and its views are cut from
the scaled frame. 'squash' ignores the shape of pixels, for it ignores the shape of the frame; 'crop' scales
the frame as it would be displayed (pixel aspect and rotation applied) until the size is covered.

Views come in the order left/top, middle, right/bottom; their mirror images follow in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from schemas.targets import ViewSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """How to make views of frames of one size.

    Scale to ``scaled_width`` x ``scaled_height`` (in the orientation of the coded frame), turn by
    ``quarter_turns`` counterclockwise, then cut ``boxes`` (left, top) of the view's size, and mirror if
    ``flip``.
    """

    scaled_width: int
    scaled_height: int
    quarter_turns: int
    boxes: tuple[tuple[int, int], ...]
    width: int
    height: int
    flip: bool


@lru_cache(maxsize=256)
def layout(width: int, height: int, pixel_aspect: Fraction, rotation: int, view: ViewSpec) -> Layout:
    """Layout for coded frames of ``width`` x ``height``, whose pixels are ``pixel_aspect`` wide for 1 high
    and which are to be turned by ``rotation`` degrees counterclockwise (rounded to a quarter turn)."""
    turns = round(rotation / 90) % 4
    sideways = turns % 2 == 1
    if view.fit == "squash":
        shown_width, shown_height = view.width, view.height
        boxes: tuple[tuple[int, int], ...] = ((0, 0),)
    else:
        aspect = pixel_aspect if pixel_aspect > 0 else Fraction(1)
        display = (Fraction(height), width * aspect) if sideways else (width * aspect, Fraction(height))
        scale = max(view.width / display[0], view.height / display[1])
        shown_width = max(view.width, round(display[0] * scale))
        shown_height = max(view.height, round(display[1] * scale))
        boxes = _boxes(shown_width - view.width, shown_height - view.height, view.crops == "three")
    scaled = (shown_height, shown_width) if sideways else (shown_width, shown_height)
    return Layout(*scaled, turns, boxes, view.width, view.height, view.flip)


def _boxes(spare_x: int, spare_y: int, three: bool) -> tuple[tuple[int, int], ...]:
    middle = (spare_x // 2, spare_y // 2)
    if not three:
        return (middle,)
    if spare_x >= spare_y:
        return (0, middle[1]), middle, (spare_x, middle[1])
    return (middle[0], 0), middle, (middle[0], spare_y)


def cut_views(rgb_HWC: np.ndarray, plan: Layout) -> np.ndarray:
    """Views (V, height, width, 3) of a frame that was scaled to the plan's size; uint8."""
    shown = np.rot90(rgb_HWC, plan.quarter_turns) if plan.quarter_turns else rgb_HWC
    views = [shown[top : top + plan.height, left : left + plan.width] for left, top in plan.boxes]
    if plan.flip:
        views += [view[:, ::-1] for view in views]
    return np.stack(views)
