"""Textures: backgrounds and objects, drawn from a seed. Pure NumPy.

All colours lie in [LOWEST, HIGHEST], so that noise within ``HEADROOM`` can be added to a finished frame as
wrapping 8-bit integers without ever wrapping. Backgrounds are rather dark and objects rather bright, so that a
small network can find them; every object is marked off its centre, because a turning disc of one colour shows
nothing.
"""

from __future__ import annotations

import math

import numpy as np

HEADROOM = 14
LOWEST, HIGHEST = 18, 237
SHAPES = ("disc", "polygon", "star", "blob", "plank")


def background_HWC(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A textured background, uint8 RGB (height, width, 3): clouds, stripes, tiles or a slope."""
    y_H1 = np.arange(height, dtype=np.float32)[:, None]
    x_1W = np.arange(width, dtype=np.float32)[None, :]
    side = min(height, width)
    clouds = _clouds(rng, height, width, octaves=(3, 6, 13))
    kind = rng.choice(["clouds", "stripes", "tiles", "slope"])
    angle, period = rng.uniform(0, math.pi), side * rng.uniform(0.06, 0.25)
    along = x_1W * math.cos(angle) + y_H1 * math.sin(angle)
    across = y_H1 * math.cos(angle) - x_1W * math.sin(angle)
    bend = (clouds - 0.5) * side * rng.uniform(0, 0.25)
    if kind == "stripes":
        field = 0.5 + 0.5 * np.sin(2 * np.pi * (along + bend) / period)
    elif kind == "tiles":
        field = ((np.floor((along + bend) / period) + np.floor((across + bend) / period)) % 2) * 0.8 + 0.1
    elif kind == "slope":
        field = (along - along.min()) / (along.max() - along.min())
    else:
        field = clouds
    grain = _clouds(rng, height, width, octaves=(40, 90))
    field = np.clip(0.72 * field + 0.28 * grain, 0, 1)[..., None]
    low, high = _two_colours(rng, (45, 105), rng.uniform(20, 60))
    tint = _clouds(rng, height, width, octaves=(2,))[..., None] * rng.uniform(-30, 30, 3).astype(np.float32)
    return _to_uint8(low + (high - low) * field + tint)


def sprite_HW4(rng: np.random.Generator, pixels: int) -> np.ndarray:
    """An object as uint8 RGBA (pixels, pixels, 4), inside the inscribed circle; its border is transparent."""
    axis = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1
    x, y = axis[None, :], axis[:, None]
    radius, theta = np.hypot(x, y), np.arctan2(y, x)
    edge = _outline(rng, theta) * 0.94
    alpha = np.clip((edge - radius) * pixels / 4 + 0.5, 0, 1)
    low, high = _two_colours(rng, (155, 205), rng.uniform(60, 130))
    tilt = rng.uniform(0, 2 * math.pi)
    across = x * math.cos(tilt) + y * math.sin(tilt)
    pattern = rng.choice(["halves", "bands", "clouds"])
    if pattern == "halves":
        field = (across > rng.uniform(-0.2, 0.2)).astype(np.float64)
    elif pattern == "bands":
        field = 0.5 + 0.5 * np.sign(np.sin(across * rng.uniform(5, 11) + rng.uniform(0, 6)))
    else:
        field = _clouds(rng, pixels, pixels, octaves=(3, 6))
    colour = low + (high - low) * field[..., None]
    spot_turn, spot_radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.26, 0.38)
    away = np.hypot(x - 0.5 * math.cos(spot_turn), y - 0.5 * math.sin(spot_turn))
    spot = np.clip((spot_radius - away) * pixels / 4 + 0.5, 0, 1)[..., None]
    colour = colour * (1 - spot) + rng.uniform(LOWEST, 80, 3).astype(np.float32) * spot
    rim = np.clip(1 - (edge - radius) * 9, 0, 1)[..., None] * 0.45
    rgba = np.concatenate(
        [_to_uint8(colour * (1 - rim) + LOWEST * rim), (alpha * 255).astype(np.uint8)[..., None]], -1
    )
    rgba[[0, -1]] = 0
    rgba[:, [0, -1]] = 0
    return np.ascontiguousarray(rgba)


def noise_tile_HW3(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """Grey noise as wrapping uint8 (height, width, 3): add it to a frame whose colours keep the headroom."""
    grain = np.clip(rng.normal(0, sigma, (height, width)).round(), 1 - HEADROOM, HEADROOM - 1)
    return np.repeat(grain.astype(np.int8).view(np.uint8)[..., None], 3, axis=-1)


def _outline(rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
    """Distance from the centre to the object's rim in each direction, at most 1."""
    kind = rng.choice(SHAPES)
    turn = rng.uniform(0, 2 * math.pi)
    if kind == "polygon":
        step = 2 * math.pi / rng.integers(3, 7)
        return np.asarray(math.cos(step / 2) / np.cos((theta + turn) % step - step / 2))
    if kind == "star":
        return np.asarray(0.78 + 0.22 * np.cos(rng.integers(4, 8) * (theta + turn)))
    if kind == "blob":
        waves = [rng.uniform(0.03, 0.1) * np.cos(k * theta + rng.uniform(0, 6)) for k in (1, 2, 3, 5)]
        return np.asarray(0.72 + np.sum(waves, axis=0))
    if kind == "plank":
        half = rng.uniform(0.3, 0.6)
        c, s = np.abs(np.cos(theta + turn)), np.abs(np.sin(theta + turn))
        return np.asarray(
            np.minimum(math.sqrt(1 - half**2) / np.maximum(c, 1e-9), half / np.maximum(s, 1e-9))
        )
    return np.full_like(theta, 1.0)


def _clouds(rng: np.random.Generator, height: int, width: int, octaves: tuple[int, ...]) -> np.ndarray:
    """Smooth noise in [0, 1], float32 (height, width): random grids of so many cells, enlarged and summed."""
    total = np.zeros((height, width), np.float32)
    for weight, cells in zip((1.0, 0.5, 0.3), octaves, strict=False):
        total += np.float32(weight) * _enlarge(rng.random((cells + 1, cells + 1), np.float32), height, width)
    return np.asarray((total - total.min()) / (total.max() - total.min() + np.float32(1e-9)))


def _enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Smoothly interpolate a square grid of knots to (height, width)."""
    for axis, length in ((0, height), (1, width)):
        place = np.linspace(0, grid.shape[axis] - 1.001, length, dtype=np.float32)
        knot = place.astype(np.int64)
        part = place - knot
        part = part * part * (3 - 2 * part)
        shape = (-1, 1) if axis == 0 else (1, -1)
        part = part.reshape(shape)
        grid = np.take(grid, knot, axis) * (1 - part) + np.take(grid, knot + 1, axis) * part
    return grid


def _two_colours(
    rng: np.random.Generator, between: tuple[float, float], distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two colours around a middle ``between`` two levels, whose brightness or hue differ by about ``distance``."""
    middle = rng.uniform(*between, 3)
    away = rng.normal(0, 1, 3)
    away *= distance / 2 / np.abs(away).max()
    return (middle - away).astype(np.float32), (middle + away).astype(np.float32)


def _to_uint8(colour: np.ndarray) -> np.ndarray:
    return np.clip(colour + 0.5, LOWEST, HIGHEST).astype(np.uint8)
