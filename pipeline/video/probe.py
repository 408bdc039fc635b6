"""What a file says of itself, checked where that is cheap.

Header and index are read, and one frame is decoded (for its size and rotation, and as proof that one can be).
A local file up to 64 MiB, or one that declares no duration, is also read through once without decoding; then
the duration is what its packets show. Durations are trusted in this order: the video stream's, its DURATION
tag (Matroska), the container's (which another stream may have stretched).

Does not know: whether the rest decodes; nor that a transport or program stream was cut short, for these
declare nothing to hold them to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.error

from pipeline.video.clock import DISCONTINUITY_US, nominal_frame_us
from pipeline.video.decoder import MediaInfo
from pipeline.video.source import PROBE_BLOCK, Media, explain, open_media
from schemas.errors import VideoError

SCAN_BYTES = 64 << 20
_TRUNCATION_TOLERANCE_US = 250_000
_CLOCK_TEXT = re.compile(r"^(\d+):(\d+):(\d+(?:\.\d+)?)$")
_SELF_TIMED = frozenset({"mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo", "obu", "ivf"})
"""Formats without a declared duration: what FFmpeg reports is measured or guessed from what is there."""


_SHORT_US, _SLOWEST_US = 3_600_000_000, 10_000_000


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the packets show, in microseconds of the container's clock; ends are None where no packet was
    seen."""

    start_us: int | None
    end_us: int | None
    end_all_us: int | None
    num_frames: int
    num_keyframes: int


def probe(uri: str) -> MediaInfo:
    """Probe one file.

    Raises
    ------
    VideoError
        Stage 'open' where it is not a video or cannot be had, 'probe' where no frame of it can be decoded.
    """
    with open_media(uri, block_bytes=PROBE_BLOCK) as media:
        try:
            return _probe(media)
        except av.error.FFmpegError as error:
            raise explain(error, "probe", uri, media.file) from error


def _probe(media: Media) -> MediaInfo:
    stream, container = media.stream, media.container
    frame_us = nominal_frame_us(stream.average_rate or stream.guessed_rate)
    declared_us, is_videos = _declared_us(media)
    frame = _first_frame(media)
    scan: _Scan | None = None
    if (media.is_local and media.num_bytes <= SCAN_BYTES) or declared_us is None:
        scan = _scan(media, frame_us)
    duration_us, truncated = _judge(declared_us, is_videos, scan, media, frame_us)
    num_frames = scan.num_frames if scan else (stream.frames or None)
    _require_plausible(duration_us, num_frames, media.uri)
    num_keyframes = scan.num_keyframes if scan else None
    if scan is None and num_frames and len(stream.index_entries) == num_frames:
        num_keyframes = sum(entry.is_keyframe for entry in stream.index_entries)
    rate = stream.average_rate or stream.guessed_rate
    sideways = round(frame.rotation / 90) % 2 == 1
    return MediaInfo(
        duration_us=duration_us,
        width=frame.height if sideways else frame.width,
        height=frame.width if sideways else frame.height,
        rotation=frame.rotation,
        fps=float(rate) if rate else (num_frames or 0) * 1e6 / duration_us,
        num_frames=num_frames,
        num_keyframes=num_keyframes,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        has_audio=bool(container.streams.audio),
        truncated=truncated,
    )


def _declared_us(media: Media) -> tuple[int | None, bool]:
    """The declared duration, and whether it is the video's own."""
    stream, container = media.stream, media.container
    if _SELF_TIMED & set(container.format.name.split(",")):
        return None, False
    if stream.duration and stream.duration > 0:
        ticks, index = stream.duration, stream.index_entries
        if len(index) > 1:  # muxers have been seen to declare less than they index
            ticks = max(ticks, index[len(index) - 1].timestamp - (stream.start_time or 0))
        return _us(ticks, stream.time_base), True
    start_us = _us(stream.start_time or 0, stream.time_base)
    match = _CLOCK_TEXT.match(stream.metadata.get("DURATION", "").strip())
    if match:
        hours, minutes, seconds = match.groups()
        end_us = round(Fraction(seconds) * 1_000_000) + (int(hours) * 60 + int(minutes)) * 60_000_000
        if end_us > start_us:
            return end_us - start_us, True
    if container.duration and container.duration > 0:
        return container.duration, False
    return None, False


def _require_plausible(duration_us: int, num_frames: int | None, uri: str) -> None:
    """One flipped bit in a table of times makes days of seconds, and millions of clips of them. Slow slide shows pass:
    it takes more than an hour, and less than a picture in ten seconds."""
    if num_frames and duration_us > max(_SHORT_US, num_frames * _SLOWEST_US):
        raise VideoError(
            "probe",
            f"{num_frames} frames in {duration_us / 1e6:.0f} s are no video: a time in {uri} is damaged",
            permanent=True,
            cause="ImplausibleLength",
        )


def _judge(
    declared_us: int | None, is_videos: bool, scan: _Scan | None, media: Media, frame_us: int
) -> tuple[int, bool]:
    """Duration to plan with, and whether the file was cut short."""
    if scan is None:
        return declared_us or frame_us, _index_passes_end(media)
    if scan.start_us is None or scan.end_us is None or scan.end_all_us is None:
        raise VideoError("probe", f"no video packet in {media.uri}", permanent=True, cause="NoFrames")
    shown_us = max(scan.end_us - scan.start_us, 1)
    if declared_us is None:
        return shown_us, False
    reached_us = (
        shown_us if is_videos else scan.end_all_us - min(scan.start_us, media.container.start_time or 0)
    )
    if reached_us < declared_us - max(_TRUNCATION_TOLERANCE_US, 3 * frame_us):
        return declared_us, True
    return shown_us, False


def _index_passes_end(media: Media) -> bool:
    index = media.stream.index_entries
    return len(index) > 1 and index[len(index) - 1].pos + index[len(index) - 1].size > media.num_bytes


def _first_frame(media: Media) -> Any:
    """The first frame that can be decoded; leaves the file wherever that was found."""
    last = "it holds none"
    packets = media.container.demux(media.stream)
    while True:
        packet = next(packets, None)
        media.check_storage("probe")
        if packet is not None and not packet.size:
            packet = None
        try:
            frames = media.stream.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.error.FFmpegError as error:
            last = f"{type(error).__name__}: {error.strerror}"
            frames = []
        if frames:
            return frames[0]
        if packet is None:
            break
    text = f"no frame can be decoded from {media.uri}: {last}"
    raise VideoError("probe", text, permanent=True, cause="NoFrames")


def _scan(media: Media, frame_us: int) -> _Scan:
    """Read all packets of a fresh opening of the file, of all streams where others may be longer."""
    with open_media(media.uri) as again:
        for other in again.container.streams:
            if other.type in ("audio", "video"):
                other.discard = 0
        return _scan_packets(again, frame_us)


def _scan_packets(media: Media, frame_us: int) -> _Scan:
    video = media.stream
    extent = _Extent(video.time_base, frame_us, jumps=bool(_SELF_TIMED & {media.container.format.name}))
    end_others_us = 0
    only_dts = media.container.format.name == "avi"
    count = keys = 0
    for packet in media.container.demux():
        media.check_storage("probe")
        if not packet.size or packet.is_discard:
            continue
        stamp = packet.pts if packet.pts is not None and not only_dts else packet.dts
        if packet.stream_index == video.index:
            count += 1
            keys += packet.is_keyframe
            extent.add(stamp, packet.duration or 0)
        elif stamp is not None:
            other_us = _us(stamp + (packet.duration or 0), packet.time_base)
            end_others_us = max(end_others_us, other_us)
    media.check_storage("probe")
    start_us, end_us = extent.start_us, extent.end_us
    if end_us is None and count:
        start_us, end_us = 0, count * frame_us
    end_all_us = max(end_us, end_others_us) if end_us is not None else None
    return _Scan(start_us, end_us, end_all_us, count, keys)


class _Extent:
    """First and last instant of a stream from its packets, in ticks.

    The end is that of the frame shown last: with B-frames other packets' durations are steps in decoding
    order, and may reach past it. In formats whose clocks may start anew, ``jumps`` back are joined on.
    """

    def __init__(self, time_base: Fraction, frame_us: int, jumps: bool) -> None:
        self._time_base = time_base
        self._frame = max(1, round(Fraction(frame_us, 1_000_000) / time_base))
        self._jump = int(Fraction(DISCONTINUITY_US, 1_000_000) / time_base)
        self._jumps = jumps
        self._shift = 0
        self._last: int | None = None
        self._start: int | None = None
        self._top: int | None = None
        self._end: int | None = None

    def add(self, stamp: int | None, duration: int) -> None:
        if stamp is None:
            return
        stamp += self._shift
        if (
            self._jumps
            and self._last is not None
            and self._end is not None
            and stamp < self._last - self._jump
        ):
            self._shift += self._end - stamp
            stamp = self._end
        self._last = stamp
        end = stamp + (duration or self._frame)
        self._start = stamp if self._start is None else min(self._start, stamp)
        if self._top is None or stamp >= self._top:
            self._top, self._end = stamp, end

    @property
    def start_us(self) -> int | None:
        return None if self._start is None else _us(self._start, self._time_base)

    @property
    def end_us(self) -> int | None:
        """`start_us` plus the length, which is rounded as a whole."""
        if self._start is None or self._end is None:
            return None
        return _us(self._start, self._time_base) + _us(self._end - self._start, self._time_base)


def _us(ticks: int, base: Fraction) -> int:
    return round(ticks * base * 1_000_000)
