"""What the packets of a file say before a frame is decoded: when each frame is shown, and what decoders trip over.

One pass of PyAV over the packets, which is cheap beside decoding; only the first frame is decoded, for its size
and rotation. Decoders that are asked for frames by number get their numbers from here, by the same clock that
times the frames of the default decoder.

Does not know: whether a packet decodes, and whether the size of the pictures changes in mid-stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av.error
import numpy as np

from pipeline.video.clock import FrameClock, nominal_frame_us
from pipeline.video.source import Media
from schemas.errors import VideoError

_H264_IDR = 5


@dataclass(frozen=True, slots=True)
class PacketScan:
    """Frames in display order, each with its time and length in microseconds, and ``damage`` in words.

    ``width``, ``height`` and ``pixel_aspect`` are as displayed, after rotation. The counts are of packets:
    ``num_leading`` follow a keyframe and are shown before it (an open GOP); ``num_unclean_keyframes`` are marked
    as keyframes after the first and cannot be started from (intra refresh); ``num_hidden`` are decoded and not
    shown (an edit list). ``regular`` is false where timestamps are missing, double or start anew.
    """

    container: str
    codec: str
    width: int
    height: int
    pixel_aspect: Fraction
    frame_us: int
    times_us_N: np.ndarray
    lengths_us_N: np.ndarray
    damage: tuple[str, ...]
    num_leading: int = 0
    num_unclean_keyframes: int = 0
    num_hidden: int = 0
    starts_with_keyframe: bool = True
    has_b_frames: bool = False
    regular: bool = True


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int | None
    dts: int | None
    duration: int
    damage: str


def scan_packets(media: Media) -> PacketScan:
    """Read ``media`` through; its position is at the end afterwards.

    Raises
    ------
    VideoError
        Stage 'decode': not permanent where the storage fails, permanent where the data cannot be read through or
        no frame can be decoded.
    """
    stream, name = media.stream, media.container.format.name
    only_dts = name == "avi"
    extradata = stream.codec_context.extradata or b""
    codec = stream.codec_context.codec.canonical_name
    shown: list[_Packet] = []
    leading = unclean = hidden = 0
    starts_with_keyframe = True
    first: Any = None
    key_pts: int | None = None
    damage = ""
    for number, packet in enumerate(_packets(media)):
        if first is None:
            first = _first_frame(media, packet)
        if number == 0:
            starts_with_keyframe = packet.is_keyframe
        elif packet.is_keyframe and not starts_clean(codec, extradata, bytes(packet)):
            unclean += 1
        if packet.is_keyframe:
            key_pts, damage = packet.pts, ""
        elif key_pts is not None and packet.pts is not None and packet.pts < key_pts:
            leading += 1
        if packet.is_corrupt:
            damage = "corrupt packet"
        hidden += packet.is_discard or (packet.pts is not None and packet.pts < 0 and not only_dts)
        shown.append(_Packet(packet.pts, packet.dts, packet.duration or 0, damage))
    if first is None:
        first = _first_frame(media, None)
    if first is None:
        text = f"no frame can be decoded from {media.uri}"
        raise VideoError("decode", text, permanent=True, cause="NoFrames")
    frame_us = nominal_frame_us(stream.average_rate or stream.guessed_rate)
    times_us_N, lengths_us_N, regular, damages = _timed(shown, stream.time_base, frame_us, only_dts)
    sideways = round(first.rotation / 90) % 2 == 1
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return PacketScan(
        container=name,
        codec=codec,
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        pixel_aspect=1 / aspect if sideways and aspect > 0 else aspect,
        frame_us=frame_us,
        times_us_N=times_us_N,
        lengths_us_N=lengths_us_N,
        damage=damages,
        num_leading=leading,
        num_unclean_keyframes=unclean,
        num_hidden=hidden,
        starts_with_keyframe=starts_with_keyframe,
        has_b_frames=bool(stream.codec_context.has_b_frames),
        regular=regular,
    )


def _packets(media: Media) -> Iterator[Any]:
    try:
        for packet in media.container.demux(media.stream):
            media.check_storage("decode")
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        media.check_storage("decode")
        passing = isinstance(error, (OSError, MemoryError))
        text = f"the file cannot be read through: {error.strerror} ({media.uri})"
        raise VideoError("decode", text, permanent=not passing, cause=type(error).__name__) from error
    media.check_storage("decode")


def _first_frame(media: Media, packet: Any) -> Any:
    try:
        frames = media.stream.decode(packet)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return None
    return frames[0] if frames else None


def _timed(
    packets: Sequence[_Packet], time_base: Fraction, frame_us: int, only_dts: bool
) -> tuple[np.ndarray, np.ndarray, bool, tuple[str, ...]]:
    """Times, lengths, whether the timestamps can be sorted by, and damage; all in display order."""
    stamps = [packet.dts if only_dts else packet.pts for packet in packets]
    known = [stamp for stamp in stamps if stamp is not None]
    regular = len(known) == len(set(known)) == len(packets)
    steps = [packet.dts for packet in packets if packet.dts is not None]
    regular = regular and all(a <= b for a, b in pairwise(steps))
    ordered = sorted(packets, key=lambda p: p.pts or 0) if regular and not only_dts else packets
    clock = FrameClock(time_base, frame_us, only_dts=only_dts)
    ticks = [clock.tick(packet.pts, packet.dts, packet.duration) for packet in ordered]
    times_us, lengths_us = zip(*ticks, strict=True)
    return (
        np.array(times_us, np.int64),
        np.array(lengths_us, np.int64),
        regular,
        tuple(packet.damage for packet in ordered),
    )


def starts_clean(codec: str, extradata: bytes, packet: bytes) -> bool:
    """Whether decoding can start at a keyframe packet. For H.264 only an IDR picture is known to be such a place;
    of other codecs nothing else is known than that the packet is marked."""
    if codec != "h264":
        return True
    return next((kind == _H264_IDR for kind in _nal_kinds(extradata, packet) if 1 <= kind <= 5), True)


def _nal_kinds(extradata: bytes, packet: bytes) -> Iterator[int]:
    """Types of the NAL units of an H.264 packet, with lengths before them (mp4) or start codes (else)."""
    if len(extradata) > 4 and extradata[0] == 1:
        width, at = (extradata[4] & 3) + 1, 0
        while at + width < len(packet):
            yield packet[at + width] & 31
            at += width + int.from_bytes(packet[at : at + width], "big")
        return
    at = packet.find(b"\x00\x00\x01")
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3] & 31
        at = packet.find(b"\x00\x00\x01", at + 3)
