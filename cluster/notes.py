"""Warnings of an actor, kept until they travel to the driver with an answer."""

from __future__ import annotations

import logging
from collections import deque

_MOST = 50


class Notes(logging.Handler):
    """A logging handler that keeps the last warnings as text."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: deque[str] = deque(maxlen=_MOST)

    def attach(self) -> None:
        """Listen to all loggers of this process."""
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(f"{record.name}: {record.getMessage()}")

    def take(self) -> tuple[str, ...]:
        """What was said since the last call."""
        texts: list[str] = []
        while self._texts:
            texts.append(self._texts.popleft())
        return tuple(texts)
