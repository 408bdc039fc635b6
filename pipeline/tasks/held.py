"""Frames that wait until it is known whether they are wanted: in memory up to a bound, beyond it in a file."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RetryableError

Frames = NDArray[np.uint8]


class HeldFrames:
    """Arrays by number, each taken or dropped once. ``max_bytes`` of them are held in memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._here: dict[int, Frames] = {}
        self._there: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._file: IO[bytes] | None = None
        self._next = 0
        self.bytes_here = 0
        self.bytes_there = 0

    def put(self, frames: Frames) -> int:
        """Hold frames; their number.

        Raises
        ------
        RetryableError
            If they find no room: of this machine, not of the shard.
        """
        number, self._next = self._next, self._next + 1
        if self.bytes_here + frames.nbytes <= self._max_bytes or not self._here:
            self._here[number] = frames
            self.bytes_here += frames.nbytes
            return number
        try:
            place = self._write(frames)
        except OSError as e:
            raise RetryableError(f"frames that wait cannot be written to {tempfile.gettempdir()}: {e}") from e
        self._there[number] = place, frames.shape
        self.bytes_there += frames.nbytes
        return number

    def _write(self, frames: Frames) -> int:
        """Where they are in the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="locum-frames-")  # noqa: SIM115 - closed by `close`
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(frames).data)
        self._file.flush()  # a full disk is to be noticed here
        return place

    def take(self, number: int) -> Frames:
        """The frames of a number, which are held no more."""
        if (frames := self._here.pop(number, None)) is not None:
            self.bytes_here -= frames.nbytes
            return frames
        place, shape = self._there[number]
        if self._file is None:
            raise ValueError("nothing was written")
        self._file.seek(place)
        data = self._file.read(int(np.prod(shape)))
        self.drop(number)
        return np.frombuffer(data, np.uint8).reshape(shape)

    def drop(self, number: int) -> None:
        """The frames of a number are not wanted."""
        if (frames := self._here.pop(number, None)) is not None:
            self.bytes_here -= frames.nbytes
            return
        _, shape = self._there.pop(number)
        self.bytes_there -= int(np.prod(shape))
        if not self._there and self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Forget everything."""
        self._here.clear()
        self._there.clear()
        self.bytes_here = self.bytes_there = 0
        if self._file is not None:
            self._file.close()
            self._file = None
