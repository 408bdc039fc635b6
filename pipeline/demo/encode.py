"""Encoding: a plan becomes a file. One frame at a time, with one thread: the bytes depend on the plan alone.

"Alone" means with the same libraries: another FFmpeg or NumPy may write other bytes, though the same motions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.demo.plan import FAMILIES, Family, VideoPlan
from pipeline.demo.render import render

_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "superfast", "crf": "27"},
    "libx265": {
        "preset": "ultrafast",
        "crf": "29",
        "x265-params": "log-level=none:pools=none:frame-threads=1",
    },
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "38", "b": "0"},
    "mpeg4": {"qmin": "4", "qmax": "7"},
}
_VARIABLE_CLOCK = Fraction(1, 1000)
_AUDIO_RATE = {"aac": 22_050, "mp2": 22_050, "libopus": 48_000}


def available_families() -> tuple[Family, ...]:
    """The families whose encoder this build of PyAV has."""
    return tuple(f for f in FAMILIES if f.encoder in av.codecs_available and _can_encode(f.encoder))


def encode(plan: VideoPlan, path: Path) -> None:
    """Render ``plan`` and write it to ``path``, whatever that is called; the container is the plan's.

    Raises
    ------
    av.error.FFmpegError
        If the encoder is missing or the disk is full; a partial file is left at ``path``.
    """
    e = plan.encoding
    clock = _VARIABLE_CLOCK if e.family.variable_rate else Fraction(1, e.rate)
    with av.open(
        str(path), "w", format=e.family.container, container_options={"fflags": "+bitexact"}
    ) as container:
        stream: Any = container.add_stream(e.family.encoder, rate=e.rate, options=_OPTIONS[e.family.encoder])
        stream.width, stream.height, stream.pix_fmt = e.width, e.height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = e.keyframe_every
        context.time_base = clock
        context.flags |= av.codec.context.Flags.bitexact
        hum: Iterator[tuple[float, list[Any]]] = iter(())
        if e.has_audio:
            hum = _hum(container.add_stream(e.family.audio, rate=_AUDIO_RATE[e.family.audio]), plan)
        heard_s, packets = next(hum, (math.inf, []))
        for number, (pixels_HWC, time_us) in enumerate(zip(render(plan), plan.times_us(), strict=True)):
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24").reformat(
                format="yuv420p", threads=1
            )
            frame.pts = int(time_us) // 1000 if e.family.variable_rate else number
            frame.time_base = clock
            while heard_s * 1e6 <= time_us:
                container.mux(packets)
                heard_s, packets = next(hum, (math.inf, []))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for _, late_packets in chain([(heard_s, packets)], hum):
            container.mux(late_packets)


def _hum(stream: Any, plan: VideoPlan) -> Iterator[tuple[float, list[Any]]]:
    """Start and packets of each second of a quiet tone that beats slowly; it knows nothing of the class."""
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    stream.codec_context.layout = "mono"
    rate = stream.codec_context.sample_rate
    length = round(plan.encoding.duration_s * rate)
    pitch = 180 + 40 * (plan.index % 9)
    for start in range(0, length, rate):
        seconds = np.arange(start, min(start + rate, length)) / rate
        wave = 3000 * np.sin(2 * np.pi * pitch * seconds) * (1 + 0.5 * np.sin(2 * np.pi * 0.7 * seconds))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield start / rate, list(stream.encode(frame))
    yield length / rate, list(stream.encode(None))


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
