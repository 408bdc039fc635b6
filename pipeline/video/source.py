"""Opening a URI for PyAV, and telling damage of a file from a fault of its surroundings.

A local path is FFmpeg's to open; anything else is read through fsspec as a seekable file in ranged reads, and
never through a temporary file. FFmpeg takes a failed read for the end of the file or for damage, so the file
object remembers the fault of its storage and `explain` asks there first.

Does not know: which streams a playlist would lead to. Playlists and text are refused, for a file of an
archive must not name others to be opened in its stead.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import av
import av.error
import av.logging
import fsspec
from av.stream import Discard, Disposition

from pipeline.video.pulse import PULSE
from schemas.errors import VideoError

av.logging.set_level(None)

READ_BLOCK = 4 << 20
"""Bytes a ranged read fetches from an object store while decoding; the next block is fetched meanwhile."""
PROBE_BLOCK = 256 << 10
"""Bytes a ranged read fetches while only header and index are looked at."""

_REFUSED_FORMATS = frozenset(
    {
        "hls",
        "concat",
        "dash",
        "applehttp",
        "tty",
        "sdp",
        "rtsp",
        "lavfi",
        "ffmetadata",
        "webvtt",
        "srt",
        "lrc",
        "ass",
    }
)
_NO_DAMAGE = (OSError, MemoryError)


class RangedFile(io.RawIOBase):
    """A read-only, seekable view of an fsspec file with a position of its own.

    Reads do not raise, for PyAV would bring the exception up in some later call: ``fault`` is the first one
    that befell a read, and that read and those after it find the end of the file.
    """

    def __init__(self, raw: Any, size: int) -> None:
        super().__init__()
        self._raw = raw
        self._size = size
        self._position = 0
        self.fault: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self.fault is not None:
            return b""
        data = b""
        with PULSE.waiting_for("storage"), _Remember(self):
            if self._raw.tell() != self._position:
                self._raw.seek(self._position)
            data = self._raw.read(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Remember:
    """Keeps an exception of the storage, of whatever type, as the file's fault."""

    def __init__(self, file: RangedFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self._file.fault = error
            return True
        return False


@dataclass(slots=True)
class Media:
    """An open container and its video stream. ``num_bytes`` is the size of the file."""

    uri: str
    container: Any
    stream: Any
    num_bytes: int
    file: RangedFile | None

    @property
    def is_local(self) -> bool:
        return self.file is None

    def check_storage(self, stage: str) -> None:
        """Raise the fault of the storage as a VideoError, if there was one that FFmpeg kept to itself."""
        if self.file is not None and self.file.fault is not None:
            raise explain(self.file.fault, stage, self.uri, self.file)


def explain(error: BaseException, stage: str, uri: str, file: RangedFile | None = None) -> VideoError:
    """What an exception means for the video: a permanent VideoError for damage, else a passing one."""
    if file is not None and file.fault is not None:
        error = file.fault
    name = type(error).__name__
    if isinstance(error, av.error.FFmpegError) and not isinstance(error, _NO_DAMAGE):
        return VideoError(stage, f"{error.strerror} ({uri})", permanent=True, cause=name)
    return VideoError(stage, f"{name}: {error}", permanent=False, cause=name)


def local_path(uri: str) -> str | None:
    """Absolute path of a local URI; None for one that is not local."""
    if uri.startswith(("file://", "local://")):
        return os.path.abspath(uri.split("://", 1)[1])
    return None if "://" in uri or "::" in uri else os.path.abspath(uri)


@contextmanager
def open_media(uri: str, *, block_bytes: int | None = None) -> Iterator[Media]:
    """Open ``uri`` and pick its video stream: FFmpeg's best one, cover pictures aside.

    From an object store ``block_bytes`` are fetched at a time, `READ_BLOCK` where not given.
    All other streams are discarded while reading, and decoding is set to one thread.

    Raises
    ------
    VideoError
        Stage 'open'. Permanent where the bytes are not a video, not permanent where they could not be had.
    """
    path = local_path(uri)
    file: RangedFile | None = None
    container: Any = None
    try:
        try:
            if path is not None:
                num_bytes = os.stat(path).st_size
            else:
                file = _open_ranged(uri, block_bytes or READ_BLOCK)
                num_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
            if num_bytes == 0:
                raise VideoError("open", f"the file is empty: {uri}", permanent=True, cause="Empty")
            container = _open_container(path, file)
        except VideoError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            raise explain(error, "open", uri, file) from error
        media = Media(uri, container, _video_stream(container, uri, file), num_bytes, file)
        yield media
    finally:
        if container is not None:
            container.close()
        if file is not None:
            file.close()


def _open_ranged(uri: str, block_bytes: int) -> RangedFile:
    fs, path = fsspec.core.url_to_fs(uri)
    raw = fs.open(path, "rb", block_size=block_bytes, cache_type="background", cache_options={"maxblocks": 6})
    raw.seek(0, io.SEEK_END)
    return RangedFile(raw, raw.tell())


def _open_container(path: str | None, file: RangedFile | None) -> Any:
    options = {"protocol_whitelist": "file"}
    if path is None:
        return av.open(file, "r", options=options, metadata_errors="replace", buffer_size=256 << 10)
    return av.open(path, "r", options=options, metadata_errors="replace")


def _video_stream(container: Any, uri: str, file: RangedFile | None) -> Any:
    if file is not None and file.fault is not None:
        raise explain(file.fault, "open", uri, file)
    name = container.format.name
    if _REFUSED_FORMATS & set(name.split(",")):
        raise _not_a_video(f"a playlist or text ({name}), not a video: {uri}", "NotAVideo")
    candidates = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not candidates:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no"
        raise _not_a_video(f"no video stream in {uri}: {name} with {kinds} streams only", "NoVideoStream")
    best = container.streams.best("video")
    stream = best if any(s.index == best.index for s in candidates) else candidates[0]
    if stream.codec_context is None:
        raise _not_a_video(f"no decoder for the video stream of {uri}", "NoDecoder")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    stream.thread_type = "NONE"
    stream.thread_count = 1
    return stream


def _not_a_video(message: str, cause: str) -> VideoError:
    return VideoError("open", message, permanent=True, cause=cause)
