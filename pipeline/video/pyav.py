"""The default decoder: PyAV, one thread, one container open a video. See `frame_reader` for what makes it
exact.

Frames are scaled once by swscale, with the colour matrix and range that each frame declares (BT.601, limited
range, where it declares none, as FFmpeg does); rounding is exact and the same on every processor. Rotation is
applied after scaling. Interlaced frames are not deinterlaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av.error
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from pipeline.video.decoder import DecodedClip
from pipeline.video.frame_reader import FrameReader
from pipeline.video.sampling import Sampler, end_tolerance_us
from pipeline.video.source import Media, open_media
from pipeline.video.views import cut_views, layout
from schemas.clip import ClipSpan
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec

# Without FULL_CHR_H_INT limited-range video comes out up to 2.5 of 255 too dark; it costs 0.1 ms a frame.
_EXACT = Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_INTERPOLATIONS = {
    "bilinear": Interpolation.BILINEAR | _EXACT,
    "bicubic": Interpolation.BICUBIC | _EXACT,
    "area": Interpolation.AREA | _EXACT,
    "fast_bilinear": Interpolation.FAST_BILINEAR | _EXACT,
}


class PyAVDecoder:
    """Implements `pipeline.video.decoder.Decoder`. Holds no state between videos.

    ``seek=False`` decodes everything from the start, whatever is asked for.
    """

    name = "pyav"

    def __init__(self, *, seek: bool = True) -> None:
        self._seek = seek

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec,
        decode: DecodeSpec,
        also: Sequence[ViewSpec] = (),
    ) -> Iterator[DecodedClip]:
        """Yield the clips of ``spans``, which are sorted by start, as soon as each is whole.

        Raises
        ------
        VideoError
            Stage 'open', or 'decode' where no frame can be decoded (permanent) or the storage fails (not).
        """
        if not spans:
            return
        with open_media(uri) as media:
            scalers = [FrameScaler(media, each, decode) for each in (view, *also)]
            sampler: Sampler[Any] = Sampler(spans, *(scaler.views for scaler in scalers))
            reader = FrameReader(media, may_seek=self._seek, key_frames=decode.key_frames)
            yield from _fill(sampler, reader)
            if not reader.unproven:
                _require_frames(reader, uri)
                return
        with open_media(uri) as media:
            for scaler in scalers:
                scaler.media = media
            sampler.jump()
            reader = FrameReader(media, may_seek=False, key_frames=decode.key_frames)
            yield from _fill(sampler, reader)
            _require_frames(reader, uri)


def _fill(sampler: Sampler[Any], reader: FrameReader) -> Iterator[DecodedClip]:
    for frame in reader:
        if reader.jumped:
            sampler.jump()
        yield from sampler.push(frame)
        wanted_us = sampler.next_time_us
        if wanted_us is None:
            return
        reader.skip_to(wanted_us)
    if not reader.unproven:
        yield from sampler.finish(reader.lost, end_tolerance_us(reader.clock.frame_us), reader.end_us)


def _require_frames(reader: FrameReader, uri: str) -> None:
    if reader.num_frames == 0:
        reason = reader.lost or "it holds none"
        raise VideoError(
            "decode", f"no frame can be decoded from {uri}: {reason}", permanent=True, cause="NoFrames"
        )


class FrameScaler:
    """Makes views of source frames; frames of one video may differ in size."""

    def __init__(self, media: Media, view: ViewSpec, decode: DecodeSpec) -> None:
        self.media = media
        self._view = view
        self._interpolation = _INTERPOLATIONS[decode.interpolation]
        self._reformatter = VideoReformatter()

    def views(self, frame: Any) -> np.ndarray:
        """Views (V, H, W, 3) of one frame, uint8 RGB."""
        aspect = self.media.stream.sample_aspect_ratio or Fraction(1)
        plan = layout(frame.width, frame.height, aspect, frame.rotation, self._view)
        try:
            scaled = self._reformatter.reformat(
                frame,
                width=plan.scaled_width,
                height=plan.scaled_height,
                format="rgb24",
                src_colorspace=frame.colorspace,
                src_color_range=frame.color_range,
                dst_color_range=ColorRange.JPEG,
                interpolation=self._interpolation,
                threads=1,
            )
        except av.error.FFmpegError as error:
            text = f"cannot make RGB of {frame.format.name}, colour space {frame.colorspace}: {error}"
            raise VideoError("decode", text, permanent=True, cause=type(error).__name__) from error
        return cut_views(scaled.to_ndarray(), plan)
