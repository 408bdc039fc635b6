"""What a worker and its decode actors say to each other. Plain values; nothing here knows Ray."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.notes import Note
from pipeline.frames import Delivered, Event, Request
from schemas.video import Video


@dataclass(frozen=True, slots=True)
class Part:
    """Some of one video: what was ``before`` need not come again.

    ``ticket`` names one try to decode the video in one actor: a later part with the same ticket goes on where the
    one before ended.
    """

    video: Video
    ticket: str
    before: Delivered


@dataclass(frozen=True, slots=True)
class DecodeCall:
    """Asks for the next ``max_clips`` clips of each part, or where None for all to its end."""

    number: int
    parts: tuple[Part, ...]
    request: Request
    max_clips: int | None


@dataclass(slots=True)
class Chunk:
    """The answer. Events of each part, in its order; seconds spent and bytes resident when it was ready.

    ``read_seconds`` is time not spent on the CPU: waiting for storage. ``finished_at`` is the actor's wall clock.
    """

    events: tuple[tuple[Event, ...], ...]
    decode_seconds: float
    read_seconds: float
    finished_at: float
    resident_bytes: int
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a decode actor is: enough to look at it from outside."""

    pid: int
    node_id: str
    words_path: str


@dataclass(frozen=True, slots=True)
class Health:
    """A sign of life: ``beats`` rises while work is done, ``doing`` says what is waited for."""

    beats: int
    doing: str
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Death:
    """How a decode actor ended. ``blame`` says that the video it was decoding may be the reason."""

    error: str
    message: str
    permanent: bool = True
    blame: bool = True
