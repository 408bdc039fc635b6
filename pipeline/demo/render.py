"""Rendering: a plan becomes frames, one at a time. Pure; memory holds one frame, however long the video.

Sprites and the background are drawn once a video; a frame is a shifted copy of the background, a few turned
and scaled sprites laid over it, bars that hide what passes behind them, and grain. Nothing of this knows the
label: it reaches the pixels through the events' paths alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.demo.motion import Path, video_paths, wander_T
from pipeline.demo.plan import VideoPlan
from pipeline.demo.texture import background_HWC, noise_tile_HW3, sprite_HW4

_SHAKE_PIXELS = 6
_NOISE_MARGIN = 64


@dataclass(frozen=True, slots=True)
class _Bar:
    """An upright or lying bar in pixels of the padded background; it hides what is behind it."""

    rows: slice
    columns: slice
    pixels_HWC: np.ndarray


def render(plan: VideoPlan) -> Iterator[np.ndarray]:
    """Yield the frames of ``plan`` at ``plan.times_us()``: uint8 RGB (height, width, 3), each a new array."""
    height, width = plan.encoding.height, plan.encoding.width
    short = min(height, width)
    times_T = plan.times_us() / 1e6
    scene, look = np.random.default_rng(list(plan.scene)), np.random.default_rng(list(plan.look))
    back_HWC = background_HWC(scene, height + 2 * _SHAKE_PIXELS, width + 2 * _SHAKE_PIXELS)
    sprite_pixels = int(short * 0.72)
    sprites = [sprite_HW4(scene, sprite_pixels) for _ in range(3)]
    bars = _draw_bars(scene, height, width)
    shake_pixels = float(look.choice([0.0, 0.0, 1.5, 4.0])) * short / 240
    shake_T2 = np.stack(
        [wander_T(look, times_T, min(shake_pixels, _SHAKE_PIXELS), 4.0) for _ in range(2)], -1
    )
    fidget = float(look.choice([0.004, 0.02, 0.045]))
    first, second = (_restless(look, times_T, path, fidget) for path in video_paths(plan.events, times_T))
    layers = [(first, sprites[0]), (second, sprites[1])]
    if look.random() < 0.35:
        layers.append((_bystander(look, times_T, width / short / 2, height / short / 2), sprites[2]))
    layers = [layers[i] for i in look.permutation(len(layers))]
    noise_HWC = noise_tile_HW3(
        look, height + _NOISE_MARGIN, width + _NOISE_MARGIN, float(look.choice([1.0, 2.0, 4.0]))
    )
    for t, (shake_x, shake_y) in enumerate(np.rint(shake_T2).astype(np.int64)):
        left, top = _SHAKE_PIXELS + int(shake_x), _SHAKE_PIXELS + int(shake_y)
        frame_HWC = back_HWC[top : top + height, left : left + width].copy()
        for path, sprite in layers:
            x = width / 2 + path.x_T[t] * short - shake_x
            y = height / 2 + path.y_T[t] * short - shake_y
            _paste(frame_HWC, sprite, x, y, path.size_T[t] * short, path.angle_T[t], path.opacity_T[t])
        for bar in bars:
            _cover(frame_HWC, bar, top, left)
        row, column = look.integers(0, _NOISE_MARGIN, 2)
        np.add(frame_HWC, noise_HWC[row : row + height, column : column + width], out=frame_HWC)
        yield frame_HWC


def _restless(rng: np.random.Generator, t_T: np.ndarray, path: Path, amplitude: float) -> Path:
    """``path`` with a small aimless drift and sway on top, in rest and motion alike."""
    return Path(
        path.x_T + wander_T(rng, t_T, amplitude, 0.9),
        path.y_T + wander_T(rng, t_T, amplitude, 0.9),
        path.size_T * (1 + wander_T(rng, t_T, 0.6 * amplitude, 0.9)),
        path.angle_T + wander_T(rng, t_T, 4 * amplitude, 0.9),
        path.opacity_T,
    )


def _bystander(rng: np.random.Generator, t_T: np.ndarray, half_width: float, half_height: float) -> Path:
    """A small third object that drifts about and has nothing to do with the class."""
    one_T = np.ones_like(t_T)
    still = Path(
        one_T * rng.uniform(-1, 1) * (half_width - 0.1),
        one_T * rng.uniform(-1, 1) * (half_height - 0.1),
        one_T * rng.uniform(0.1, 0.2),
        one_T * rng.uniform(0, 2 * math.pi),
        one_T,
    )
    return _restless(rng, t_T, still, float(rng.uniform(0.02, 0.14)))


def _draw_bars(rng: np.random.Generator, height: int, width: int) -> list[_Bar]:
    count = int(rng.choice([0, 0, 1, 2, 3]))
    if count == 0:
        return []
    texture_HWC = background_HWC(rng, height + 2 * _SHAKE_PIXELS, width + 2 * _SHAKE_PIXELS)
    bars = []
    for _ in range(count):
        upright = rng.random() < 0.6
        across = width if upright else height
        thick = int(min(height, width) * rng.uniform(0.03, 0.1))
        at = int(rng.uniform(0.08, 0.9) * across) + _SHAKE_PIXELS
        span, whole = slice(at, at + thick), slice(0, None)
        rows, columns = (whole, span) if upright else (span, whole)
        bars.append(_Bar(rows, columns, texture_HWC))
    return bars


def _cover(frame_HWC: np.ndarray, bar: _Bar, top: int, left: int) -> None:
    """Paint ``bar``, which stands still in the scene, into a frame that looks at it from (top, left)."""
    height, width = frame_HWC.shape[:2]
    rows, columns = slice(top, top + height), slice(left, left + width)
    if bar.columns.stop is not None:
        columns = slice(max(left, bar.columns.start), min(left + width, bar.columns.stop))
    if bar.rows.stop is not None:
        rows = slice(max(top, bar.rows.start), min(top + height, bar.rows.stop))
    if rows.stop > rows.start and columns.stop > columns.start:
        target = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        frame_HWC[target] = bar.pixels_HWC[rows, columns]


def _paste(
    frame_HWC: np.ndarray,
    sprite_HW4: np.ndarray,
    x: float,
    y: float,
    size: float,
    angle: float,
    opacity: float,
) -> None:
    """Lay a sprite of diameter ``size`` pixels over the frame at (x, y), turned clockwise by ``angle``."""
    height, width = frame_HWC.shape[:2]
    top, bottom = max(0, math.floor(y - size / 2)), min(height, math.ceil(y + size / 2) + 1)
    left, right = max(0, math.floor(x - size / 2)), min(width, math.ceil(x + size / 2) + 1)
    if top >= bottom or left >= right or opacity <= 0:
        return
    pixels = sprite_HW4.shape[0]
    scale = pixels / size
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    dx_1W = np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - x)
    dy_H1 = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    middle, last = np.float32(pixels / 2), np.float32(pixels - 1)
    column_HW = dx_1W * np.float32(cos) + (dy_H1 * np.float32(sin) + middle)
    row_HW = dx_1W * np.float32(-sin) + (dy_H1 * np.float32(cos) + middle)
    np.clip(column_HW, 0, last, out=column_HW)
    np.clip(row_HW, 0, last, out=row_HW)
    place_HW = row_HW.astype(np.intp)
    place_HW *= pixels
    place_HW += column_HW.astype(np.intp)
    rgba_HW4 = (
        sprite_HW4.view(np.uint32)
        .ravel()
        .take(place_HW, mode="clip")
        .view(np.uint8)
        .reshape(*place_HW.shape, 4)
    )
    alpha_HW = (rgba_HW4[..., 3] * np.uint16(round(opacity * 257))) >> np.uint16(8)
    rest_HW = np.uint16(256) - alpha_HW
    # Colour by colour: NumPy is several times slower along an innermost axis of 3.
    for colour in range(3):
        seen_HW = frame_HWC[top:bottom, left:right, colour]
        mixed_HW = seen_HW * rest_HW
        mixed_HW += rgba_HW4[..., colour] * alpha_HW
        mixed_HW >>= np.uint16(8)
        seen_HW[:] = mixed_HW
