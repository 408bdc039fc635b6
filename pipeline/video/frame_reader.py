"""Frames of one open file in display order, each with its time and what is known of damage to it.

Sequential decoding is exact by construction and the main path. A seek is taken only to save decoding, only in
containers whose timestamps can be trusted, and only believed when the frames that come prove it: the first
packet is a keyframe at or before the wanted time, and the first frame given out has just its time, is intra
coded and intact; frames before it (leading frames of an open GOP) are not used. A file that fails this is
read again from the start, without seeking.

With ``key_frames`` only packets that are keyframes reach the decoder. Each frame is then shown until the next one, and
the last one until the last packet's end.

Damage is what FFmpeg can notice: packets marked corrupt, packets that cannot be decoded, frames whose errors
were concealed. From there to the next intact keyframe all frames count as damaged. Does not know: bits that
flipped into another valid stream, or packets that were left out without a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
from av.video.frame import PictureType

from pipeline.video.clock import FrameClock, nominal_frame_us
from pipeline.video.pulse import PULSE
from pipeline.video.sampling import TimedFrame
from pipeline.video.source import Media
from schemas.errors import VideoError

SEEKABLE = frozenset({"mov", "mp4", "matroska", "webm"})
MIN_FRAMES_SAVED = 12
"""A seek costs a flush, a keyframe and some re-reading: about so many frames."""
_BLIND_SEEK_US = 2_000_000
_MAX_BACK_OFFS = 4
_MAX_READ_ERRORS = 1000


class FrameReader:
    """Iterate to get `TimedFrame`s; call `skip_to` between frames to say that nothing is wanted before a
    time.

    ``jumped`` is true for the frame that follows a seek: it is not its forerunner's successor. ``unproven``
    is true once a seek could not be believed: then no more frames come and the file must be read anew.
    ``num_frames`` counts the frames given out. Iteration raises VideoError (not permanent) when the storage
    fails; damage is not an error but a property of frames, and ``lost`` says what of it is still open at the
    end of the file.
    """

    def __init__(self, media: Media, *, may_seek: bool = True, key_frames: bool = False) -> None:
        self._media = media
        self._key_frames, self._is_trimmed = key_frames, False
        self._end_stamp: int | None = None
        stream = media.stream
        if key_frames:
            stream.codec_context.skip_frame = "NONKEY"  # or the decoder would wait for frames that never come
        rate = stream.average_rate or stream.guessed_rate
        self._frame_us = nominal_frame_us(rate)
        self._time_base: Fraction = stream.time_base or Fraction(1, 1_000_000)
        self.clock = FrameClock(
            self._time_base, self._frame_us, only_dts=media.container.format.name == "avi"
        )
        self._may_seek = may_seek and bool(SEEKABLE & set(media.container.format.name.split(",")))
        self._is_matroska = "matroska" in media.container.format.name
        self._packets = self._demux()
        self._last_us = 0
        self._sought_us = -1
        self._key_pts: int | None = None
        self.jumped = False
        self.unproven = False
        self.num_frames = 0
        self.lost = ""
        self._lost_stamp: int | None = None
        self._stamp: int | None = None

    def __iter__(self) -> Iterator[TimedFrame[Any]]:
        """Frames to the end of the file; after a seek that proved wrong, none more, and ``unproven`` is
        true."""
        for frame in self._decoded():
            if self._key_pts is not None:
                if frame.pts is not None and frame.pts < self._key_pts:
                    continue
                if not self._proves_seek(frame):
                    self.unproven = True
                    return
                self._key_pts = None
                self.jumped = True
            self.num_frames += 1
            yield self._timed(frame)
            self.jumped = False

    def skip_to(self, time_us: int) -> None:
        """Nothing before ``time_us`` is wanted: seek, where that is safe and cheaper than decoding on."""
        if not self._may_seek or not self.clock.regular or time_us <= self._sought_us:
            return
        saved_us = self._place_of_keyframe(time_us) - self._last_us
        if saved_us < MIN_FRAMES_SAVED * self._frame_us:
            return
        self._sought_us = time_us  # never twice for one time: each seek makes headway
        self._seek(time_us)

    def _place_of_keyframe(self, time_us: int) -> int:
        """About when the last keyframe before ``time_us`` is shown, from the index; 0 where unknown."""
        index = self._media.stream.index_entries
        target = self.clock.to_ticks(time_us)
        if self._is_matroska and self._sought_us < 0:  # the cues are read at the first seek
            return time_us if time_us - self._last_us >= _BLIND_SEEK_US else 0
        place = index.search_timestamp(target, backward=True)
        if place < 0:
            return 0
        return self.clock.to_us(index[place].timestamp - (self.clock.zero or 0))

    def _seek(self, time_us: int) -> None:
        target = self.clock.to_ticks(time_us)
        offset = target
        for _ in range(_MAX_BACK_OFFS):
            try:
                self._media.container.seek(offset, stream=self._media.stream, backward=True)
                self._media.check_storage("decode")
                self._packets = self._demux()
                first = next(self._packets, None)
            except av.error.FFmpegError:
                self._media.check_storage("decode")
                first = None
            if first is None or not first.is_keyframe or first.pts is None:
                break
            if first.pts <= target:
                self._packets = _chain(first, self._packets)
                self._key_pts = first.pts
                self.clock.jump()
                self.lost, self._lost_stamp = "", None
                return
            earlier = min(first.pts, first.dts if first.dts is not None else first.pts, offset)
            offset = earlier - max(1, int(Fraction(self._frame_us, 1_000_000) / self._time_base))
        self.unproven = True
        self._packets = iter(())

    def _proves_seek(self, frame: Any) -> bool:
        intra = frame.key_frame or frame.pict_type == PictureType.I
        return bool(frame.pts == self._key_pts and intra and not frame.is_corrupt)

    def _demux(self) -> Iterator[Any]:
        """Packets to the end of the file, over read errors; empty packets left out."""
        errors = 0
        while True:
            try:
                for packet in self._media.container.demux(self._media.stream):
                    self._media.check_storage("decode")
                    if packet.size and (not self._key_frames or self._passed(packet).is_keyframe):
                        yield packet
                break
            except av.error.FFmpegError as error:
                self._media.check_storage("decode")
                if isinstance(error, (OSError, MemoryError)):
                    raise VideoError(
                        "decode", str(error), permanent=False, cause=type(error).__name__
                    ) from error
                errors += 1
                self._note_loss(f"unreadable data ({type(error).__name__})")
                if errors >= _MAX_READ_ERRORS:
                    break
        self._media.check_storage("decode")

    def _decoded(self) -> Iterator[Any]:
        """Frames as the decoder gives them out, over packets that it refuses."""
        while True:
            packets = self._packets
            packet = next(packets, None)
            PULSE.beat()
            if packet is not None:
                stamp = packet.pts if packet.pts is not None else packet.dts
                self._stamp = stamp if stamp is not None else self._stamp
                if packet.is_corrupt:
                    self._note_loss("corrupt packet")
            elif self.unproven:
                return
            try:
                frames = self._at_once(packet) if self._key_frames else self._media.stream.decode(packet)
            except av.error.EOFError:
                frames = []
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._note_loss(f"undecodable packet ({type(error).__name__})")
                frames = []
            for frame in frames:
                yield frame
                if self._packets is not packets:
                    break
            if packet is None and self._packets is packets:
                return

    def _passed(self, packet: Any) -> Any:
        """Note what a packet says of frames that will not be seen: where the video begins, and where it ends."""
        PULSE.beat()
        stamp = packet.dts if self.clock.only_dts or packet.pts is None else packet.pts
        if stamp is None:
            return packet
        self._end_stamp = max(self._end_stamp or stamp, stamp + (packet.duration or 0))
        if packet.is_discard:
            self._is_trimmed = True
        elif self._is_trimmed and not self.num_frames:  # the keyframe of what is shown first is not given out
            self.clock.zero = stamp if self.clock.zero is None else min(self.clock.zero, stamp)
        return packet

    @property
    def end_us(self) -> int:
        """Where the last packet ends, as far as keyframes alone are decoded; else 0."""
        if self._end_stamp is None or self.clock.zero is None:
            return 0
        return self.clock.to_us(self._end_stamp - self.clock.zero)

    def _at_once(self, packet: Any) -> list[Any]:
        """The frame of a keyframe's packet, with the packet's stamps: the decoder is not to wait for others."""
        if packet is None:
            return []
        try:
            frames = [*self._media.stream.decode(packet), *self._media.stream.decode(None)]
        finally:
            self._media.stream.codec_context.flush_buffers()
        for frame in frames:
            frame.pts, frame.dts = packet.pts, packet.dts
        return frames

    def _note_loss(self, text: str) -> None:
        self.lost = self.lost or f"{text} near {self._last_us / 1e6:.2f} s"
        if self._stamp is not None:
            self._lost_stamp = max(self._stamp, self._lost_stamp or self._stamp)

    def _timed(self, frame: Any) -> TimedFrame[Any]:
        lost_before = self.lost
        if frame.is_corrupt:
            self._stamp = frame.pts if frame.pts is not None else self._stamp
            self._note_loss("decoding errors in a frame")
        elif self.lost and frame.key_frame and self._is_past_loss(frame):
            self.lost, self._lost_stamp = "", None
        time_us, length_us = self.clock.tick(frame.pts, frame.dts, frame.duration)
        self._last_us = time_us
        return TimedFrame(time_us, length_us, frame, self.lost, lost_before)

    def _is_past_loss(self, frame: Any) -> bool:
        stamp = frame.pts if frame.pts is not None else frame.dts
        return self._lost_stamp is None or stamp is None or stamp > self._lost_stamp


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
