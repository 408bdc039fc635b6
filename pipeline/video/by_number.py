"""Decoding with a library that hands out frames by number: clips, times, checks and scaling are ours.

The packets say when each frame is shown, so the numbers that are needed are known beforehand, and are asked for in
rising order and in batches of at most `BATCH_BYTES`. What comes is held to what the packets said: as many frames, of
the size that is displayed. The library makes RGB of the whole frame, turned upright; swscale then scales that with
the algorithm asked for. So pixels differ from the default decoder's, by which library made RGB and when.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.video.decoder import DecodedClip
from pipeline.video.known_wrong import require_known_right
from pipeline.video.packet_scan import PacketScan, scan_packets
from pipeline.video.sampling import Sampler, TimedFrame, end_tolerance_us
from pipeline.video.source import Media, explain, open_media
from pipeline.video.views import cut_views, layout
from schemas.clip import ClipSpan
from schemas.errors import SettingsError, VideoError
from schemas.targets import DecodeSpec, ViewSpec

BATCH_BYTES = 32 << 20
"""Bytes of whole RGB frames that are asked for at once; one frame always is."""
BATCH_FRAMES = 16
DISAGREES = "DecoderDisagrees"


class NumberedFrames(Protocol):
    """One open video of a library. What it raises, other than VideoError, is taken for damage."""

    num_frames: int

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """Whole upright frames (N, H, W, 3), uint8 RGB, of rising ``numbers``."""
        ...


Opener = Callable[[Media, PacketScan], NumberedFrames]


def decode_by_number(
    backend: str,
    opener: Opener,
    uri: str,
    spans: Sequence[ClipSpan],
    views: Sequence[ViewSpec],
    decode: DecodeSpec,
) -> Iterator[DecodedClip]:
    """`pipeline.video.decoder.Decoder.decode` by ``opener``, which opens what has passed every check.

    ``views`` has one for each stream of frames.

    Raises
    ------
    VideoError
        Stage 'open' with cause 'DecoderKnownWrong' where ``backend`` is known to be wrong about such files; stage
        'decode' where it cannot go on, or disagrees with the packets.
    """
    if not spans:
        return
    with open_media(uri) as media:
        scan = scan_packets(media)
        require_known_right(backend, scan, uri)
        batches = _Batches(backend, opener, media, scan, _needed(spans, scan))
        scalers = [_Scaler(batches, scan, view, decode) for view in views]
        sampler: Sampler[int] = Sampler(spans, *(scaler.views for scaler in scalers))
        for number, (time_us, length_us) in enumerate(zip(*_as_ints(scan), strict=True)):
            yield from sampler.push(TimedFrame(time_us, length_us, number, scan.damage[number]))
            if sampler.next_time_us is None:
                return
        yield from sampler.finish(tolerance_us=end_tolerance_us(scan.frame_us))


def _as_ints(scan: PacketScan) -> tuple[list[int], list[int]]:
    return scan.times_us_N.tolist(), scan.lengths_us_N.tolist()


def _needed(spans: Sequence[ClipSpan], scan: PacketScan) -> list[int]:
    """Numbers of the frames that the samples of ``spans`` show, rising, each once."""
    streams = [times for span in spans for times in (span.times_us, *span.also_us)]
    samples = np.array([time_us for times in streams for time_us in times], np.int64)
    places = np.searchsorted(scan.times_us_N, samples, side="right") - 1
    numbers: list[int] = np.unique(np.clip(places, 0, None)).tolist()
    return numbers


class _Batches:
    """Whole frames by number. Opens the video at the first; fetches a batch when it is asked for its first."""

    def __init__(
        self, backend: str, opener: Opener, media: Media, scan: PacketScan, needed: Sequence[int]
    ) -> None:
        self._backend = backend
        self._opener = opener
        self._media = media
        self._scan = scan
        self._needed = list(needed)
        self._size = max(1, min(BATCH_FRAMES, BATCH_BYTES // (scan.width * scan.height * 3)))
        self._frames: NumberedFrames | None = None
        self._held: dict[int, np.ndarray] = {}

    def picture(self, number: int) -> np.ndarray:
        """A whole frame (H, W, 3). Numbers rise, but for one that is asked for again."""
        if number not in self._held:
            self._fetch(number)
        return self._held[number]

    def _fetch(self, number: int) -> None:
        start = self._needed.index(number)
        wanted, self._needed = self._needed[start : start + self._size], self._needed[start + self._size :]
        try:
            if self._frames is None:
                self._frames = self._opened()
            pictures = self._frames.pictures(wanted)
        except VideoError:
            raise
        except Exception as error:  # libraries raise whatever they like, and mean damage by it
            raise self._explained(error) from error
        self._media.check_storage("decode")
        shape = (len(wanted), self._scan.height, self._scan.width, 3)
        if pictures.shape != shape:
            raise disagrees(self._backend, self._media.uri, f"frames are {pictures.shape}, not {shape}")
        self._held = dict(zip(wanted, pictures, strict=True))

    def _opened(self) -> NumberedFrames:
        frames = self._opener(self._media, self._scan)
        num_packets = len(self._scan.times_us_N)
        if frames.num_frames != num_packets:
            text = f"it counts {frames.num_frames} frames, the file has {num_packets}"
            raise disagrees(self._backend, self._media.uri, text)
        return frames

    def _explained(self, error: Exception) -> VideoError:
        """Damage, unless the storage is at fault or the file has gone meanwhile."""
        self._media.check_storage("decode")
        if isinstance(error, MemoryError):
            return explain(error, "decode", self._media.uri)
        if self._media.is_local:
            try:
                os.stat(self._media.container.name)
            except OSError as fault:
                return explain(fault, "decode", self._media.uri)
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        text = f"{self._backend} cannot decode {self._media.uri}: {reason[-200:]}; --decode.backend pyav may"
        return VideoError("decode", text, permanent=True, cause=type(error).__name__)


class _Scaler:
    """Makes the views of one stream."""

    def __init__(self, batches: _Batches, scan: PacketScan, view: ViewSpec, decode: DecodeSpec) -> None:
        self._batches = batches
        self._layout = layout(scan.width, scan.height, scan.pixel_aspect, 0, view)
        flags = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        self._interpolation = Interpolation[decode.interpolation.upper()] | flags
        self._reformatter = VideoReformatter()

    def views(self, number: int) -> np.ndarray:
        """Views (V, H, W, 3) of a frame."""
        plan, picture_HWC = self._layout, self._batches.picture(number)
        if picture_HWC.shape[:2] != (plan.scaled_height, plan.scaled_width):
            frame: Any = VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
            picture_HWC = self._reformatter.reformat(
                frame,
                width=plan.scaled_width,
                height=plan.scaled_height,
                interpolation=self._interpolation,
                threads=1,
            ).to_ndarray()
        return cut_views(picture_HWC, plan)


def require_alone(backend: str, other: str) -> None:
    """decord shows its copies of FFmpeg's libraries to the whole process, and torchcodec, which loads the system's,
    then calls into them: both in one process crash it, at the latest with AV1.

    Raises
    ------
    SettingsError
        If ``other`` is loaded in this process.
    """
    if other in sys.modules:
        text = f"{backend} cannot be used in a process that has loaded {other}: their libraries crash one another"
        raise SettingsError(f"{text}; use one of both in a process")


def require_times(backend: str, uri: str, seconds_N: np.ndarray, expected_us_N: np.ndarray) -> None:
    """Hold a library's own times, counted from the video's first frame, to those of the packets.

    Half a millisecond is let pass, and what single precision loses.

    Raises
    ------
    VideoError
        Stage 'decode', permanent, cause 'DecoderDisagrees'.
    """
    off_us_N = np.abs(seconds_N.astype(np.float64) * 1e6 - expected_us_N)
    if not bool(np.all(off_us_N <= 500 + expected_us_N * 2e-7)):
        worst = int(np.argmax(off_us_N))
        text = f"it shows a frame at {seconds_N[worst]:.3f} s that is shown at {expected_us_N[worst] / 1e6:.3f} s"
        raise disagrees(backend, uri, text)


def disagrees(backend: str, uri: str, text: str) -> VideoError:
    message = f"{backend} disagrees with the packets of {uri}: {text}; use --decode.backend pyav"
    return VideoError("decode", message, permanent=True, cause=DISAGREES)
