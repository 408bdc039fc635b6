"""Signs of life of whoever opens videos in this process: a counter that rises with each packet, frame and read.

Whoever watches from another thread, or through one from another process, tells slow work from work that hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """``beats`` rises while work is done."""

    def __init__(self) -> None:
        self.beats = 0
        self._waits: list[str] = []  # of several threads

    @property
    def doing(self) -> str:
        """What is being waited for outside of this process, by any of its threads; empty where nothing is."""
        return next(iter(self._waits[:1]), "")

    def beat(self) -> None:
        self.beats += 1

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """A wait for something outside of this process, which beats at its beginning and its end."""
        self.beats += 1
        self._waits.append(what)
        try:
            yield
        finally:
            self._waits.remove(what)
            self.beats += 1


PULSE = Pulse()
"""That of this process."""
