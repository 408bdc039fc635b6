"""Motions: the classes of the synthetic archive, and the paths that objects take. Pure NumPy.

A class is a *change*, never a state. Five coordinates describe two objects: the first one's x, y, size and
angle, and the gap between both. Each class drives exactly one of them from one end of its sweep to the
other; the other four stand still at phases drawn from the very distribution that a driven one passes
through. So a single frame has the same distribution under every class, and only time tells them apart.
(To first order: videos differ in how much they rest, and what a coordinate's ends are worth is matched on
average only.)

An event is rest, one motion, rest. Around it the objects fade out and in again somewhere else, so that, say,
an object can approach twice without receding in between.

Units: lengths are shares of the frame's shorter side, the origin is the frame's centre, x grows to the
right and y downwards; angles are radians, growing clockwise on the screen; times are seconds.

The archive is synthetic and flat: no depth, no light, no people. What holds on it need not hold on films.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Coordinate = Literal["x", "y", "size", "angle", "gap"]
Wave = Literal["rise", "fall", "zigzag", "vee"]

DRIVES: dict[str, tuple[Coordinate, Wave]] = {
    "translate_left": ("x", "fall"),
    "translate_right": ("x", "rise"),
    "translate_up": ("y", "fall"),
    "translate_down": ("y", "rise"),
    "rotate_cw": ("angle", "rise"),
    "rotate_ccw": ("angle", "fall"),
    "approach": ("size", "rise"),
    "recede": ("size", "fall"),
    "oscillate": ("x", "zigzag"),
    "collide": ("gap", "vee"),
}
"""What each class drives, and along which wave."""

CLASSES: tuple[str, ...] = tuple(DRIVES)
"""Class names, in the order of the teacher's logits."""

MIRROR_X: dict[str, str] = {
    "translate_left": "translate_right",
    "translate_right": "translate_left",
    "rotate_cw": "rotate_ccw",
    "rotate_ccw": "rotate_cw",
}
"""The class that a class becomes in a mirror, where it becomes another one."""

MIRROR_Y: dict[str, str] = {
    "translate_up": "translate_down",
    "translate_down": "translate_up",
    "rotate_cw": "rotate_ccw",
    "rotate_ccw": "rotate_cw",
}
"""The class that a class becomes upside down (mirrored, not turned), where it becomes another one."""

REVERSE: dict[str, str] = {
    **MIRROR_X,
    "translate_up": "translate_down",
    "translate_down": "translate_up",
    "approach": "recede",
    "recede": "approach",
}
"""The class that a class becomes when time runs backwards, where it becomes another one."""

FADE_SECONDS = 0.2
GAP_SHARE = 0.7
"""The gap's sweep as a share of an event's reach."""


@dataclass(frozen=True, slots=True)
class Event:
    """Rest, one motion, rest: ``start_s <= begin_s < stop_s <= end_s``.

    ``reach`` (of x, y and the gap), ``growth`` (log of the ratio of sizes) and ``turn`` are the lengths of
    the sweeps, so speed is sweep over ``stop_s - begin_s``. ``phases`` holds, in [0, 1], where x, y, size,
    angle and gap stand while they are not driven. ``axis`` points from the first object to the second.
    """

    label: str
    start_s: float
    begin_s: float
    stop_s: float
    end_s: float
    center_x: float
    center_y: float
    size: float
    second_size: float
    angle: float
    axis: float
    reach: float
    growth: float
    turn: float
    cycles: int
    phases: tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Path:
    """Where one object is at T times: centre, diameter, angle and opacity (0-1), each float64 (T,)."""

    x_T: np.ndarray
    y_T: np.ndarray
    size_T: np.ndarray
    angle_T: np.ndarray
    opacity_T: np.ndarray


def wave_T(wave: Wave, u_T: np.ndarray, *, cycles: int = 1, phase: float = 0.0) -> np.ndarray:
    """Phase in [0, 1] of a driven coordinate at progress ``u_T`` in [0, 1]; all are passed through evenly."""
    if wave == "rise":
        return u_T
    if wave == "fall":
        return 1.0 - u_T
    if wave == "vee":
        return np.abs(1.0 - 2.0 * u_T)
    return np.abs(1.0 - 2.0 * ((u_T * cycles + phase / 2) % 1.0))


def event_paths(event: Event, t_T: np.ndarray) -> tuple[Path, Path]:
    """Paths of the first and the second object through one event; ``t_T`` in seconds of the video."""
    u_T = np.clip((t_T - event.begin_s) / (event.stop_s - event.begin_s), 0.0, 1.0)
    driven, wave = DRIVES[event.label]
    names: tuple[Coordinate, ...] = ("x", "y", "size", "angle", "gap")
    phase = {
        name: wave_T(wave, u_T, cycles=event.cycles, phase=rest)
        if name == driven
        else np.full_like(u_T, rest)
        for name, rest in zip(names, event.phases, strict=True)
    }
    size_T = event.size * np.exp(event.growth * (phase["size"] - 0.5))
    gap_T = touching(event.size, event.second_size) + GAP_SHARE * event.reach * phase["gap"]
    dx, dy = math.cos(event.axis) / 2, math.sin(event.axis) / 2
    opacity_T = _opacity_T(event, t_T)
    first = Path(
        event.center_x + event.reach * (phase["x"] - 0.5) - dx * gap_T,
        event.center_y + event.reach * (phase["y"] - 0.5) - dy * gap_T,
        size_T,
        event.angle + event.turn * (phase["angle"] - 0.5),
        opacity_T,
    )
    still_T = np.ones_like(u_T)
    second = Path(
        event.center_x + dx * gap_T,
        event.center_y + dy * gap_T,
        event.second_size * still_T,
        event.axis * still_T,
        opacity_T,
    )
    return first, second


def video_paths(events: tuple[Event, ...], t_T: np.ndarray) -> tuple[Path, Path]:
    """Paths through all events of a video, for ascending times ``t_T`` inside it."""
    starts = np.array([e.start_s for e in events[1:]])
    which_T = np.searchsorted(starts, t_T, side="right")
    parts = [event_paths(event, t_T[which_T == i]) for i, event in enumerate(events)]
    return _concatenate([p[0] for p in parts]), _concatenate([p[1] for p in parts])


def wander_T(rng: np.random.Generator, t_T: np.ndarray, amplitude: float, max_hertz: float) -> np.ndarray:
    """A smooth, aimless drift around 0 that stays within ``amplitude``; float64 of shape (T,)."""
    hertz, turns = rng.uniform(0.15, 1.0, 3) * max_hertz, rng.uniform(0, 1, 3)
    waves_T = [np.sin(2 * np.pi * (h * t_T + p)) for h, p in zip(hertz, turns, strict=True)]
    return np.asarray(amplitude / 3 * np.sum(waves_T, axis=0))


def touching(size: float, second_size: float) -> float:
    """About the distance of two objects' centres when they touch; few objects fill their circle."""
    return 0.42 * (size + second_size)


def _opacity_T(event: Event, t_T: np.ndarray) -> np.ndarray:
    """1, but for a short fade at either end of the event (so a video fades in and out, too)."""
    edge_T = np.minimum(t_T - event.start_s, event.end_s - t_T)
    return np.clip(edge_T / FADE_SECONDS, 0.0, 1.0)


def _concatenate(paths: list[Path]) -> Path:
    return Path(
        np.concatenate([p.x_T for p in paths]),
        np.concatenate([p.y_T for p in paths]),
        np.concatenate([p.size_T for p in paths]),
        np.concatenate([p.angle_T for p in paths]),
        np.concatenate([p.opacity_T for p in paths]),
    )
