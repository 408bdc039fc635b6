"""Small videos whose frames carry their number in their pixels, encoded with PyAV.

Each file comes with the truth that went into it: which frame is shown from which microsecond on, counted from
the first shown frame. The number is 16 black or white blocks, which survive any codec, scaling and colour
space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

GRID = 4
US = 1_000_000


@dataclass(frozen=True)
class VideoFile:
    """A file, and the (time_us, number) of each frame that it shows, sorted; ``end_us`` is the last one's
    end."""

    path: Path
    shown: tuple[tuple[int, int], ...]
    end_us: int

    def number_at(self, time_us: int) -> int:
        """Number of the frame that is shown at ``time_us``."""
        times = [time for time, _ in self.shown]
        return self.shown[int(np.searchsorted(times, time_us, side="right")) - 1][1]


def draw(number: int, width: int, height: int) -> np.ndarray:
    """An RGB picture (height, width, 3) of ``number``, which has at most 16 bits."""
    bits = np.array([(number >> bit) & 1 for bit in range(GRID * GRID)], np.uint8).reshape(GRID, GRID)
    rows = np.arange(height) * GRID // height
    columns = np.arange(width) * GRID // width
    return np.repeat((bits[rows][:, columns] * 255)[:, :, None], 3, axis=2)


def read_number(picture_HWC: np.ndarray) -> int:
    """The number in a picture of any size. Fails where a block is neither black nor white."""
    height, width = picture_HWC.shape[:2]
    number = 0
    for bit in range(GRID * GRID):
        row, column = divmod(bit, GRID)
        y, x = (2 * row + 1) * height // (2 * GRID), (2 * column + 1) * width // (2 * GRID)
        value = float(picture_HWC[y - 1 : y + 1, x - 1 : x + 1].mean())
        if 80 < value < 175:
            raise ValueError(f"block {bit} is grey ({value:.0f}): not a numbered frame")
        number |= (value > 127) << bit
    return number


def encode(
    path: Path,
    times: Sequence[Fraction],
    codec: str = "libx264",
    *,
    size: tuple[int, int] = (128, 96),
    time_base: Fraction = Fraction(1, 12_800),
    rate: int = 25,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    gop: int = 12,
    b_frames: int = 2,
    rotation: int = 0,
    audio_seconds: float = 0.0,
    first_number: int = 0,
    full_range: bool = False,
) -> VideoFile:
    """Encode frames ``first_number``, ... shown at ``times`` (seconds)."""
    width, height = size
    with av.open(path, "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pix_fmt
        context.time_base, context.gop_size, context.max_b_frames = time_base, gop, b_frames
        context.thread_count = 1
        if full_range:
            context.color_range = 2
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=8000) if audio_seconds else None
        for number, time in enumerate(times, first_number):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_color_range=2 if full_range else 1)
            frame.pts, frame.time_base = round(time / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            add_silence(container, audio, audio_seconds)
    zero = times[0]
    shown = tuple((_floor_us(time - zero), first_number + i) for i, time in enumerate(times))
    return VideoFile(path, shown, _floor_us(times[-1] - zero + Fraction(1, rate)))


def add_silence(container: av.container.OutputContainer, audio: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def _floor_us(seconds: Fraction) -> int:
    return int(seconds * US)


def constant(num_frames: int, rate: int = 25) -> list[Fraction]:
    return [Fraction(n, rate) for n in range(num_frames)]


def variable(num_frames: int, seed: int = 0, hold_after: int | None = None) -> list[Fraction]:
    """Times in whole milliseconds with steps of 15 to 120 ms, and a hold of 6 s after one frame."""
    steps = np.random.default_rng(seed).integers(15, 121, num_frames)
    if hold_after is not None:
        steps[hold_after + 1] = 6000
    return [Fraction(int(ms), 1000) for ms in np.cumsum(steps) - steps[0]]


def trim(source: VideoFile, path: Path, first: int) -> VideoFile:
    """All from frame ``first`` on by copying packets, as ``ffmpeg -ss -c copy`` does: an edit list hides what
    must be decoded before it."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(source.path) as reader, av.open(path, "w", options=options) as writer:
        stream = reader.streams.video[0]
        out = writer.add_stream_from_template(stream)
        cut = round(Fraction(source.shown[first][0], US) / stream.time_base)
        reader.seek(cut, stream=stream)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, out
                writer.mux(packet)
    zero = source.shown[first][0]
    shown = tuple((time - zero, number) for time, number in source.shown[first:])
    return VideoFile(path, shown, source.end_us - zero)


OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:log-level=-1"}
QUIET = {"x264-params": "scenecut=0:log-level=-1"}
MILLISECONDS = Fraction(1, 1000)

Recipe = Callable[[Path], VideoFile]

RECIPES: dict[str, Recipe] = {
    "h264_b.mp4": lambda p: encode(p, constant(160), options=QUIET, b_frames=3),
    "h264_b.mkv": lambda p: encode(p, constant(160), options=QUIET, b_frames=3),
    "h264_faststart.mp4": lambda p: encode(
        p, constant(100), options=QUIET, container_options={"movflags": "faststart"}
    ),
    "fragmented.mp4": lambda p: encode(
        p, constant(160), options=QUIET, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "open_gop.mp4": lambda p: encode(p, constant(160), options=OPEN_GOP, b_frames=3),
    "open_gop.mkv": lambda p: encode(p, constant(160), options=OPEN_GOP, b_frames=3),
    "open_gop.ts": lambda p: encode(p, constant(96), options=OPEN_GOP, b_frames=3),
    "intra_refresh.mp4": lambda p: encode(
        p,
        constant(160),
        options={"x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0:log-level=-1"},
        b_frames=0,
    ),
    "vfr.mp4": lambda p: encode(p, variable(150), options=QUIET, time_base=MILLISECONDS),
    "vfr_hold.mkv": lambda p: encode(p, variable(90, hold_after=40), options=QUIET, time_base=MILLISECONDS),
    "vfr_hold.mp4": lambda p: encode(p, variable(90, hold_after=40), options=QUIET, time_base=MILLISECONDS),
    "late_start.mkv": lambda p: encode(
        p, [t + 3 for t in constant(100)], options=QUIET, container_options={"avoid_negative_ts": "disabled"}
    ),
    "mpeg4_b.avi": lambda p: encode(p, constant(96), "mpeg4", time_base=Fraction(1, 25), b_frames=2),
    "h264_b.avi": lambda p: encode(p, constant(96), options=QUIET, time_base=Fraction(1, 25), b_frames=3),
    "mpeg4_b.mp4": lambda p: encode(p, constant(120), "mpeg4", time_base=Fraction(1, 25), b_frames=2),
    "mpeg2.mpg": lambda p: encode(p, constant(96), "mpeg2video", time_base=Fraction(1, 25), b_frames=2),
    "vp9.webm": lambda p: encode(
        p, constant(80), "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, b_frames=0
    ),
    "ten_bit.mp4": lambda p: encode(p, constant(60), options=QUIET, pix_fmt="yuv420p10le"),
    "odd_size.mp4": lambda p: encode(p, constant(60), options=QUIET, size=(127, 95), pix_fmt="yuv444p"),
    "interlaced.mp4": lambda p: encode(
        p, constant(60), options={"x264-params": "tff=1:scenecut=0:log-level=-1", "flags": "+ildct+ilme"}
    ),
    "full_range.mp4": lambda p: encode(p, constant(40), options=QUIET, pix_fmt="yuvj420p", full_range=True),
    "with_audio.mp4": lambda p: encode(p, constant(100), options=QUIET, audio_seconds=6.0),
    "with_audio.mkv": lambda p: encode(p, constant(100), options=QUIET, audio_seconds=6.0),
    "one_frame.mp4": lambda p: encode(p, constant(1), options=QUIET),
    "trimmed.mp4": lambda p: trim(
        encode(p.with_name("untrimmed.mp4"), constant(160), options=QUIET, gop=24), p, 38
    ),
}
"""Every file of which the plain rule must hold: the frame at t is the last one shown at or before t."""


def make(name: str, folder: Path) -> VideoFile:
    """The file called ``name`` in `RECIPES`, encoded into ``folder``."""
    return RECIPES[name](folder / name)
