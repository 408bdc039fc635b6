"""A film in which something moves now and then, for tests of what is idle."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from schemas.clip import US, ClipSpec, clip_spans

RATE, CLIP = 25, 2
BUSY = (3, 4, 9)
"""Clips of a film of twelve in which something moves."""
PLANNED = 12
SPEC = ClipSpec(num_frames=2, seconds=CLIP)
SPANS = clip_spans(0, PLANNED * CLIP * US, SPEC, [])
IDLE = {s.start_us for n, s in enumerate(SPANS) if n not in BUSY}
SHARE = 0.3


def film(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    busy: tuple[int, ...] = BUSY,
    *,
    gop: int = 25,
    faststart: bool = False,
) -> str:
    """A texture that stands still with a camera's noise, and moves in the busy clips."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 255, (24, 128), np.uint8), np.ones((4, 4), np.uint8))
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        at = 0
        for number in range(PLANNED * CLIP * RATE):
            at += 3 * (number // (CLIP * RATE) in busy)
            grey = np.roll(texture, -at, axis=1)[:, :128] // 2 + rng.integers(0, 3, (96, 128), np.uint8)
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[:, :, None], 3, axis=2), "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)
