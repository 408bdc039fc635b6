"""Trying again what a storage did not do: a few times, with pauses that grow and differ from caller to caller."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.faults import is_final

T = TypeVar("T")

_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.2


def retried(attempt: Callable[[], T], errors: tuple[type[Exception], ...]) -> T:
    """What ``attempt`` returns. It is made again after one of ``errors`` that may pass; the last of them is raised."""
    for pause in _pauses():
        try:
            return attempt()
        except errors as e:
            if is_final(e):
                raise
            time.sleep(pause)
    return attempt()


def _pauses() -> Iterator[float]:
    """Seconds to wait after each attempt but the last."""
    for i in range(_ATTEMPTS - 1):
        yield _FIRST_PAUSE_SECONDS * 2**i * random.uniform(0.5, 1.5)
