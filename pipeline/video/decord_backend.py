"""decord (its maintained fork, decord2) as a decoder: frames by number, one decode thread.

Where decord is known to be wrong the file is refused (`known_wrong`); where its own times differ from the packets' it
is refused as well. decord turns frames upright itself. It cannot read in ranges: a file of an object store is read
into memory whole, up to `MAX_BYTES_IN_MEMORY`.

Does not know: damage. decord hands out what its decoder makes of flipped bits as good frames; it works in a thread
of its own, so the CPU time that a clip is charged with leaves most of it out.
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
from schemas.errors import SettingsError, VideoError
from schemas.targets import DecodeSpec, ViewSpec

MAX_BYTES_IN_MEMORY = 1 << 30
"""Largest file that is read whole; decord takes about twice its size in memory."""


class DecordDecoder:
    """Implements `pipeline.video.decoder.Decoder`. Holds no state between videos.

    Raises
    ------
    SettingsError
        If decord is not installed or does not load, or torchcodec is loaded.
    """

    name = "decord"

    def __init__(self) -> None:
        require_alone(self.name, "torchcodec")
        try:
            import decord
        except (ImportError, OSError, RuntimeError) as error:
            text = f"--decode.backend decord: decord does not load ({error}); install it: pip install decord2"
            raise SettingsError(text) from error
        decord.logging.set_level(decord.logging.QUIET)

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
        import decord

        self._reader: Any = decord.VideoReader(_source(media), decord.cpu(0), num_threads=1)
        self.num_frames = len(self._reader)
        if self.num_frames == len(scan.times_us_N):
            starts_N = self._reader.get_frame_timestamp(np.arange(self.num_frames))[:, 0].astype(np.float64)
            require_times(DecordDecoder.name, media.uri, starts_N - starts_N[0], scan.times_us_N)

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        pictures: np.ndarray = self._reader.get_batch(list(numbers)).asnumpy()
        return pictures


def _source(media: Media) -> str | io.BytesIO:
    """A path that decord can be given, or else all bytes of the file."""
    path = local_path(media.uri)
    if path is not None and _is_utf8(path):
        return path
    if media.num_bytes > MAX_BYTES_IN_MEMORY:
        size, limit = media.num_bytes >> 20, MAX_BYTES_IN_MEMORY >> 20
        text = f"{media.uri} has {size} MiB; decord would read it whole, and more than {limit} MiB is refused"
        text += ": use --decode.backend pyav, which reads in ranges"
        raise VideoError("open", text, permanent=True, cause="TooLargeForDecord")
    if media.file is None:
        with open(path or media.uri, "rb") as file:
            return io.BytesIO(file.read())
    media.file.seek(0)
    data = media.file.read()
    media.check_storage("open")
    return io.BytesIO(data)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
