"""One process at a time in a folder of work. The lock is the system's, so a process that dies leaves none behind."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import RetryableError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder where it is not there, and hold it.

    Raises
    ------
    RetryableError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryableError(f"another process trains this student, in {folder}: wait for it") from None
        yield
