"""A worker's place, from the claim on, and what the driver makes of how long nothing was heard from it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from cluster.worker_calls import Ready, Status
from schemas.shard import ShardKey


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in a worker's hands. Later leases have higher numbers."""

    number: int
    clips: int


@dataclass(eq=False)
class Place:
    """One worker as the driver sees it. ``actor`` is there once the place is, ``ready`` once its models are loaded.

    ``leases`` holds the last lease of each shard; ``committing`` what it was told to commit, and how often it was told.
    ``leaves`` says that its node is about to go; ``began_at`` is when it began with the first of its leases.
    """

    number: int
    group: PlacementGroup
    actor: Any = None
    ready: Ready | None = None
    joined: bool = False
    status: Status | None = None
    status_asked: bool = False
    leases: dict[ShardKey, Lease] = field(default_factory=dict)
    committing: dict[ShardKey, int] = field(default_factory=dict)
    leaves: bool = False
    began_at: float = 0.0
    asked_at: float = field(default_factory=time.monotonic)
    moved_at: float = field(default_factory=time.monotonic)


def stalled(place: Place, now: float, limit_seconds: float) -> str:
    """Why a worker has to go, if it has: no progress for too long while it starts, computes or commits."""
    silent = now - place.moved_at
    if place.actor is None or silent <= limit_seconds:
        return ""
    return f"no progress for {silent:.0f} s while it {_doing(place)}; it was killed"


def waits(places: Sequence[Place], leases: Mapping[int, Sequence[ShardKey]], now: float) -> list[str]:
    """What is being waited for, in words, one line each."""
    unplaced = sum(p.actor is None for p in places)
    starting = sum(p.actor is not None and p.ready is None for p in places)
    lines = []
    if unplaced:
        lines.append(f"{unplaced} workers wait for a place; free is {free_resources()}")
    if starting:
        lines.append(f"{starting} workers load their models")
    for p in places:
        held = leases[p.number]
        if p.ready is not None and (held or p.committing):
            what = f"shard {held[0]}" if held else f"the commit of {min(p.committing)}"
            doing = p.status.waits_for if held and p.status and p.status.waits_for else _doing(p)
            lines.append(f"worker {p.number}, {what}: {doing} ({now - p.moved_at:.0f} s)")
    return lines


def free_resources() -> str:
    """What the cluster has free, in words."""
    found = ray.available_resources()
    return f"{found.get('CPU', 0.0):g} CPU, {found.get('GPU', 0.0):g} GPU, {found.get('memory', 0.0) / 1e9:.1f} GB"


def _doing(place: Place) -> str:
    if place.ready is None:
        return "loads its models"
    return "commits" if place.committing and place.status and place.status.key is None else "computes"
