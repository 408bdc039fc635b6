"""What was so a short while ago, looked up beside the caller's work: nobody waits for a storage that is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from schemas.errors import LocumError, RetryableError

log = logging.getLogger("locum.ray")

T = TypeVar("T")


class Lately(Generic[T]):
    """What ``look`` says, at most about ``seconds`` old; older where it raises RetryableError. The first look is made
    at once, and what it raises is the caller's.

    Looks are made one at a time, by a thread that does not keep the process from ending.
    """

    def __init__(self, look: Callable[[], T], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._value, self._at = look(), time.monotonic()
        self._error: LocumError | None = None
        self._looking = False

    def get(self) -> T:
        """What is known; returns at once. Raises what a look raised, but for RetryableError."""
        if self._error is not None:
            raise self._error
        if not self._looking and time.monotonic() - self._at > self._seconds:
            self._looking = True
            threading.Thread(target=self._again, name="locum-lately", daemon=True).start()
        return self._value

    def _again(self) -> None:
        try:
            self._value = self._look()
        except RetryableError as e:
            log.warning("what is known stays as it is: %s", e)
        except LocumError as e:
            self._error = e
        self._at, self._looking = time.monotonic(), False
