"""Warnings of an actor, kept until they travel to the driver with an answer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.logs import fields_of

_MOST = 50


class Note(NamedTuple):
    """A line, and what it is about."""

    text: str
    about: Mapping[str, Any]


class Notes(logging.Handler):
    """A logging handler that keeps the last warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[Note] = deque(maxlen=_MOST)

    def attach(self) -> None:
        """Listen to all loggers of this process."""
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(Note(f"{record.name}: {record.getMessage()}", fields_of(record)))

    def take(self) -> tuple[Note, ...]:
        """What was said since the last call."""
        found: list[Note] = []
        while self._kept:
            found.append(self._kept.popleft())
        return tuple(found)
