"""Signs of life of whoever opens videos in this process: a counter that rises with each packet, frame and read.

Whoever watches from another thread, or through one from another process, tells slow work from work that hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """``beats`` rises while work is done; ``doing`` says what is being waited for, empty for the decoder itself."""

    def __init__(self) -> None:
        self.beats = 0
        self.doing = ""

    def beat(self) -> None:
        self.beats += 1

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """A wait for something outside of this process, which beats at its beginning and its end."""
        self.beats += 1
        self.doing = what
        try:
            yield
        finally:
            self.doing = ""
            self.beats += 1


PULSE = Pulse()
"""That of this process."""
