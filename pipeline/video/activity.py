"""Where nothing happens, by the sizes of a video's packets: no frame is decoded.

Encoders write what changes from picture to picture, so pictures that stand still come to little. What counts are the
bytes of all pictures but keyframes, beside what comes to most in the same video: where an encoder writes equally much
whatever is to be seen, or keyframes alone, nothing is idle.

Does not know: what is to be seen. A small thing that moves in a picture that is else still may come to little too.
"""

from __future__ import annotations

from collections.abc import Sequence

import av.error
import numpy as np
from numpy.typing import NDArray

from pipeline.video.source import PROBE_BLOCK, Media, open_media
from schemas.clip import US, ClipSpan

_BUSIEST = 0.95
"""The quantile of a video's clips that the others are compared with."""
_END_TOLERANCE_US = 250_000


def idle_starts(uri: str, spans: Sequence[ClipSpan], share: float) -> frozenset[int]:
    """Starts of those clips in which less than ``share`` of what comes to most in a clip of these ``spans`` changes.
    None where packets cannot tell; a clip that is not wholly there is not idle.

    Raises
    ------
    VideoError
        If the video cannot be opened, or its storage fails.
    """
    if len(spans) < 2:
        return frozenset()
    with open_media(uri, block_bytes=PROBE_BLOCK) as media:
        time_us_P, bytes_P = _changes(media)
    if not bytes_P.any():
        return frozenset()
    start_us_N = np.array([span.start_us for span in spans])
    end_us_N = np.array([span.end_us for span in spans])
    total_P = np.concatenate([[0], np.cumsum(bytes_P)])
    first_N, last_N = (np.searchsorted(time_us_P, at_N) for at_N in (start_us_N, end_us_N))
    rate_N = (total_P[last_N] - total_P[first_N]) * US / (end_us_N - start_us_N)
    idle_N = rate_N < share * np.quantile(rate_N, _BUSIEST)
    idle_N &= end_us_N <= time_us_P[-1] + _END_TOLERANCE_US
    return frozenset(start_us_N[idle_N].tolist())


def _changes(media: Media) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each packet is decoded, from the first one on and sorted, and its bytes, 0 for keyframes; (P,) each. From
    the file's index where all packets are in it, else from one pass over the file."""
    stream = media.stream
    index = stream.index_entries
    if stream.frames and len(index) == stream.frames:
        found = [(entry.timestamp, 0 if entry.is_keyframe else entry.size) for entry in index]
    else:
        found = _demuxed(media)
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ticks_P, bytes_P = np.array(found, np.int64).T
    order = np.argsort(ticks_P, kind="stable")
    time_us_P = (ticks_P[order] - ticks_P.min()) * float(stream.time_base) * US
    return time_us_P.astype(np.int64), bytes_P[order]


def _demuxed(media: Media) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    try:
        for packet in media.container.demux(media.stream):
            media.check_storage("decode")
            stamp = packet.dts if packet.dts is not None else packet.pts
            if packet.size and stamp is not None:
                found.append((stamp, 0 if packet.is_keyframe else packet.size))
    except av.error.FFmpegError:
        media.check_storage("decode")
        return []  # the decoder will say what is wrong
    media.check_storage("decode")
    return found
