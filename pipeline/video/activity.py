"""Where nothing happens, by the sizes of a video's packets: no frame is decoded.

Encoders write what changes from picture to picture, so pictures that stand still come to little. What counts are the
bytes of all pictures but keyframes, beside the busiest clips of the same video: where an encoder writes equally much
whatever is to be seen, or keyframes alone, nothing is idle.

Does not know: what is to be seen. A small thing that moves in a picture that is else still may come to little too. Nor
where a clip lies to the frame, for packets are told by when they are decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from pipeline.video.clock import DISCONTINUITY_US
from pipeline.video.pulse import PULSE
from pipeline.video.source import PROBE_BLOCK, Media, explain, open_media
from schemas.clip import US, ClipSpan

_END_TOLERANCE_US = 250_000
_LONG = 20
"""So many clips for each clip that may be busier than what the others are compared with, two at most."""

_Packet = tuple[int, int, bool]
"""When it is decoded, in ticks; its bytes, 0 for keyframes; whether it is shown."""


def idle_starts(uri: str, spans: Sequence[ClipSpan], share: float, stop: threading.Event) -> frozenset[int]:
    """Starts of those clips of a video in which less than ``share`` changes of what does in its busiest: the third one
    of a long video, so that one or two bursts say nothing. None where packets cannot tell, or once ``stop`` is set; a
    clip that is not wholly there is not idle.

    Raises
    ------
    VideoError
        If the video cannot be opened, or its storage fails.
    """
    if len(spans) < 2:
        return frozenset()
    with open_media(uri, block_bytes=PROBE_BLOCK) as media:
        time_us_P, bytes_P = _changes(media, stop)
    if not bytes_P.any():
        return frozenset()
    start_us_N = np.array([span.start_us for span in spans])
    end_us_N = np.array([span.end_us for span in spans])
    total_P = np.concatenate([[0], np.cumsum(bytes_P)])
    first_N, last_N = (np.searchsorted(time_us_P, at_N) for at_N in (start_us_N, end_us_N))
    rate_N = (total_P[last_N] - total_P[first_N]) * US / (end_us_N - start_us_N)
    busiest = np.sort(rate_N)[-1 - min(2, len(spans) // _LONG)]
    idle_N = rate_N < share * busiest
    idle_N &= end_us_N <= time_us_P[-1] + _END_TOLERANCE_US
    return frozenset(start_us_N[idle_N].tolist())


def _changes(media: Media, stop: threading.Event) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each packet is decoded, from the first one that is shown and sorted, and its bytes, 0 for keyframes; (P,)
    each. From the file's index where all packets are in it, else from one pass over the file. Nothing where the clock
    starts anew in between, as where files were joined."""
    stream = media.stream
    index = stream.index_entries
    if 0 < stream.frames <= len(index):
        found = [
            (e.timestamp, 0 if e.is_keyframe else e.size, not e.is_discard)
            for e in index
            if e.pos + e.size
            <= media.num_bytes  # of a file that was cut short the index says more than is there
        ]
    else:
        found = _demuxed(media, stop)
    shown = [stamp for stamp, _, is_shown in found if is_shown]
    jump = DISCONTINUITY_US / US / float(stream.time_base)
    if not shown or any(after < before - jump for (before, *_), (after, *_) in pairwise(found)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ticks_P = np.array([stamp for stamp, *_ in found], np.int64)
    bytes_P = np.array([size for _, size, _ in found], np.int64)
    order = np.argsort(ticks_P, kind="stable")
    time_us_P = (ticks_P[order] - min(shown)) * float(stream.time_base) * US
    return time_us_P.astype(np.int64), bytes_P[order]


def _demuxed(media: Media, stop: threading.Event) -> list[_Packet]:
    found: list[_Packet] = []
    try:
        for packet in _packets_of(media):
            media.check_storage("decode")
            if stop.is_set():
                return []
            PULSE.beat()
            stamp = packet.dts if packet.dts is not None else packet.pts
            if packet.size and stamp is not None:
                found.append((stamp, 0 if packet.is_keyframe else packet.size, not packet.is_discard))
    except av.error.FFmpegError as error:
        media.check_storage("decode")
        if isinstance(error, (OSError, MemoryError)):
            raise explain(error, "decode", media.uri, media.file) from error
        return []  # the decoder will say what is wrong
    media.check_storage("decode")
    return found


def _packets_of(media: Media) -> Iterator[Any]:
    yield from media.container.demux(media.stream)
