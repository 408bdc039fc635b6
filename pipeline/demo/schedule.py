"""Schedules: events that tile a video, drawn from a random generator. Pure.

Rests say nothing about the class, and some last longer than a clip. Everything but the label is drawn alike for
every class: the same generator gives the same schedule, with another motion in it.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.demo.motion import CLASSES, DRIVES, GAP_SHARE, Event, touching

MIN_MOTION_SECONDS = 0.8
MAX_MOTION_SECONDS = 1.8
_REST_SHARE = 0.35
_TRIES = 40
_MARGIN = 0.08


def draw_schedule(
    rng: np.random.Generator, label: str, duration_s: float, half_width: float, half_height: float
) -> tuple[Event, ...]:
    """Events of one class that tile ``[0, duration_s)``; at least one holds a whole motion.

    ``half_width`` and ``half_height`` are the frame's, in units of its shorter side. How much of the time is
    rest is drawn once for the video, whatever its class.

    Raises
    ------
    ValueError
        If ``duration_s`` is below 1 second, or ``label`` is no class.
    """
    if duration_s < 1.0:
        raise ValueError(f"a video needs at least 1 second to show a motion, got {duration_s}")
    if label not in DRIVES:
        raise ValueError(f"unknown class {label!r}; there are {', '.join(CLASSES)}")
    mean_rest_s = rng.choice([0.15, 0.5, 1.2, 2.0])
    events: list[Event] = []
    now = 0.0
    while now < duration_s:
        left = duration_s - now
        motion_s = min(rng.uniform(MIN_MOTION_SECONDS, MAX_MOTION_SECONDS), left)
        before_s, after_s = np.minimum(rng.exponential(mean_rest_s, 2), 6.0)
        before_s = min(before_s, left - motion_s)
        end = now + before_s + motion_s + after_s
        if duration_s - end < MIN_MOTION_SECONDS + 0.3:
            end = duration_s
        times = (now, now + before_s, now + before_s + motion_s, end)
        events.append(_draw_event(rng, label, times, half_width, half_height))
        now = end
    return tuple(events)


def _draw_event(
    rng: np.random.Generator,
    label: str,
    times: tuple[float, float, float, float],
    half_width: float,
    half_height: float,
) -> Event:
    size = math.exp(rng.uniform(math.log(0.24), math.log(0.5)))
    second_size = math.exp(rng.uniform(math.log(0.2), math.log(0.4)))
    reach = rng.uniform(0.3, 0.75)
    axis, center_x, center_y = _place(rng, touching(size, second_size), reach, half_width, half_height)
    return Event(
        label,
        *times,
        center_x=center_x,
        center_y=center_y,
        size=size,
        second_size=second_size,
        angle=rng.uniform(0, 2 * math.pi),
        axis=axis,
        reach=reach,
        growth=rng.uniform(0.6, 1.3),
        turn=math.radians(rng.uniform(75, 200)),
        cycles=max(1, round(0.8 * (times[2] - times[1]))),
        phases=(_rest(rng), _rest(rng), _rest(rng), _rest(rng), _rest(rng, ends=(1.0,))),
    )


def _place(
    rng: np.random.Generator, least_gap: float, reach: float, half_width: float, half_height: float
) -> tuple[float, float, float]:
    """Axis and centre that keep both objects in sight, whatever moves: the best of a few that are drawn.

    It must not look at the label or at the phases: then where things are would betray the class.
    """
    half_gap = (least_gap + GAP_SHARE * reach) / 2
    axis_N, x_N, y_N = (
        rng.random((_TRIES, 3)) * (2 * math.pi, 2 * half_width, 2 * half_height)
        + (0, -half_width, -half_height)
    ).T
    outside_N = np.zeros(_TRIES)
    for middle_N, half, offset_N in ((x_N, half_width, np.cos(axis_N)), (y_N, half_height, np.sin(axis_N))):
        first_N, second_N = middle_N - offset_N * half_gap, middle_N + offset_N * half_gap
        outside_N += np.maximum(0.0, np.abs(first_N) + reach / 2 - half + _MARGIN)
        outside_N += np.maximum(0.0, np.abs(second_N) - half + _MARGIN)
    best = int(outside_N.argmin())
    return float(axis_N[best]), float(x_N[best]), float(y_N[best])


def _rest(rng: np.random.Generator, ends: tuple[float, ...] = (0.0, 1.0)) -> float:
    """Where a coordinate stands that is not driven: spread as a driven one, which rests at ``ends``."""
    return float(rng.choice(ends)) if rng.random() < _REST_SHARE else float(rng.random())
