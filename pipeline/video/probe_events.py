"""One file's events when it is probed: what it is and which bytes it holds, over passing faults."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.frames import Delivered, Probed, VideoEnd
from pipeline.identity import file_id
from pipeline.video.attempts import MAX_PAUSE_SECONDS
from pipeline.video.decoder import MediaInfo
from pipeline.video.probe import probe
from pipeline.video.pulse import PULSE
from schemas.errors import VideoError
from schemas.shard import Failure
from schemas.video import Video

_FIRST_PAUSE_SECONDS = 0.4
_NOT_WAITED_FOR = frozenset({"FileNotFoundError"})


def probe_events(
    video: Video, max_attempts: int, stop: threading.Event, before: Delivered = Delivered()
) -> Iterator[Probed | VideoEnd]:
    """The file's row, if it has one, and its end; nothing more once ``stop`` is set."""
    attempt = before.attempts
    while not stop.is_set():
        attempt += 1
        try:
            yield Probed(video.video_id, probe_file(video, probe))
            yield VideoEnd(video.video_id, None)
            return
        except VideoError as e:
            if e.permanent or attempt >= max_attempts or e.cause in _NOT_WAITED_FOR:
                message = str(e)[:500]
                yield VideoEnd(
                    video.video_id,
                    Failure(video.video_id, video.uri, e.stage, e.cause, message, e.permanent, attempt, 1),
                )
                return
        pause = min(MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        with PULSE.waiting_for("a pause before the next attempt"):
            stop.wait(pause * random.uniform(0.5, 1.5))


def probe_file(video: Video, probe: Callable[[str], MediaInfo]) -> dict[str, Any]:
    """The row of one file.

    Raises
    ------
    VideoError
        If it cannot be read (not permanent) or is no video (permanent).
    """
    started = time.perf_counter()
    try:
        with PULSE.waiting_for("storage"):
            identity, method, size = file_id(video.uri, video.id_method)
    except Exception as e:  # whatever a storage library raises is a fault of the storage
        raise VideoError("open", f"{type(e).__name__}: {e}", permanent=False, cause=type(e).__name__) from e
    if size == 0:
        raise VideoError("open", "the file is empty", permanent=True, cause="EmptyFile")
    info = probe(video.uri)
    return {
        "item_id": video.video_id,
        "file_id": identity,
        "id_method": method,
        "num_bytes": size,
        "duration_us": info.duration_us,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps": info.fps,
        "num_frames": info.num_frames,
        "num_keyframes": info.num_keyframes,
        "codec": info.codec,
        "container": info.container,
        "has_audio": info.has_audio,
        "truncated": info.truncated,
        "probe_ms": (time.perf_counter() - started) * 1e3,
    }
