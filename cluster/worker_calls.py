"""What the driver and its workers say to each other. Plain values; nothing here knows Ray."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cluster.notes import Note
from pipeline.runner import Receipt
from schemas.errors import LocumError
from schemas.shard import ShardKey
from schemas.targets import NUMERICS_EPOCH


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its models. ``seconds`` is what that took, ``software`` what it runs on."""

    pid: int
    node_id: str
    seconds: float
    software: str
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Computed:
    """A shard is computed; its rows wait with the worker."""

    receipt: Receipt
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A shard was not computed: it was recalled in time, or another process has committed it."""

    key: ShardKey
    recalled: bool


@dataclass(frozen=True, slots=True)
class Raised:
    """Computing a shard ended in an exception. ``fatal`` is set where no other shard would fare better."""

    key: ShardKey
    error: str
    trace: str
    fatal: LocumError | None = None


Outcome = Computed | Skipped | Raised


@dataclass(frozen=True, slots=True)
class Settled:
    """A computed shard was committed, or ``lost`` to another process; or the commit failed."""

    key: ShardKey
    lost: bool
    seconds: float
    error: Raised | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a worker is with the shard it computes. ``waits_for`` says in words what holds it up, if anything;
    ``waiting_bytes`` is what of frames is asked for or there and not taken yet."""

    key: ShardKey | None
    clips: int
    waits_for: str
    notes: tuple[Note, ...] = ()
    waiting_bytes: int = 0


def software() -> str:
    """The versions that must agree between the driver and its workers, for their numbers to."""
    parts = []
    for name in ("locum", "torch", "av", "numpy"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"{name} of no known version")
    return f"{', '.join(parts)}, epoch {NUMERICS_EPOCH}"
