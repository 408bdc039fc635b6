"""torchcodec as a decoder: frames by number, exact seek mode, one decode thread on the CPU.

Where torchcodec is known to be wrong the file is refused (`known_wrong`), and each frame's own time is held to the
packets'. torchcodec turns frames upright itself. Files of object stores are read in ranges, three times over: by our
look at the packets, by its own, and for decoding.

Does not know: damage. torchcodec stops at a packet that its decoder refuses; what the decoder makes of flipped bits
it hands out as good frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.video.by_number import decode_by_number, require_alone, require_times
from pipeline.video.decoder import DecodedClip
from pipeline.video.packet_scan import PacketScan
from pipeline.video.source import Media, local_path
from schemas.clip import ClipSpan
from schemas.errors import SettingsError
from schemas.targets import DecodeSpec, ViewSpec


class TorchCodecDecoder:
    """Implements `pipeline.video.decoder.Decoder`. Holds no state between videos.

    Raises
    ------
    SettingsError
        If torchcodec is not installed, or the FFmpeg libraries that it loads are not there, or decord is loaded.
    """

    name = "torchcodec"

    def __init__(self) -> None:
        require_alone(self.name, "decord")
        try:
            import torchcodec.decoders  # noqa: F401
        except ImportError as error:
            text = "--decode.backend torchcodec: torchcodec is not installed; pip install 'locum[torchcodec]'"
            raise SettingsError(text) from error
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            text = "--decode.backend torchcodec: torchcodec does not load; it needs the shared libraries of FFmpeg"
            text += " (apt install ffmpeg), and a build for the torch that is here: pip install 'locum[torchcodec]'"
            raise SettingsError(f"{text} ({reason})") from error

    def decode(
        self,
        uri: str,
        spans: Sequence[ClipSpan],
        view: ViewSpec,
        decode: DecodeSpec,
        also: Sequence[ViewSpec] = (),
    ) -> Iterator[DecodedClip]:
        """Yield the clips of ``spans``, which are sorted by start; see `by_number.decode_by_number`."""
        yield from decode_by_number(self.name, _Frames, uri, spans, (view, *also), decode)


class _Frames:
    def __init__(self, media: Media, scan: PacketScan) -> None:
        from torchcodec.decoders import VideoDecoder

        source: Any = media.file or io.FileIO(
            local_path(media.uri) or media.uri
        )  # a path must be UTF-8, a file not
        source.seek(0)
        self._uri = media.uri
        self._times_us_N = scan.times_us_N
        self._reader = VideoDecoder(
            source,
            stream_index=media.stream.index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device="cpu",
            seek_mode="exact",
        )
        self.num_frames = len(self._reader)

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        batch = self._reader.get_frames_at(list(numbers))
        seconds_N = batch.pts_seconds.numpy() - self._reader.metadata.begin_stream_seconds
        require_times(TorchCodecDecoder.name, self._uri, seconds_N, self._times_us_N[list(numbers)])
        pictures: np.ndarray = batch.data.numpy()
        return pictures
