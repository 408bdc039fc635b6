"""How to keep a student's frames: bytes a clip, and time to encode and decode one, for several codecs.

    python -m bench.frame_codecs MANIFEST [--frames 8] [--size 64] [--videos 40] [--rounds 5]

Each way keeps the same decoded clips; the rounds are interleaved. One thread. ``error`` is the mean distance of a
colour from what was decoded, of 255. Ways whose package is not installed are left out.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.manifest import read_entries
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.video.probe import probe
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpec, clip_spans
from schemas.targets import DecodeSpec, ViewSpec

Clip = np.ndarray
Kept = list[bytes]


@dataclass(frozen=True)
class Way:
    """One way to keep a clip (T, H, W, 3)."""

    name: str
    encode: Callable[[Clip], Kept]
    decode: Callable[[Kept, tuple[int, ...]], Clip]


def _image(pixels: Clip, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _pixels(data: bytes) -> Clip:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _each(**options: object) -> tuple[Callable[[Clip], Kept], Callable[[Kept, tuple[int, ...]], Clip]]:
    """An image a frame."""
    return (
        lambda clip: [_image(frame, **options) for frame in clip],
        lambda kept, shape: np.stack([_pixels(data) for data in kept]),
    )


def _sheet(**options: object) -> tuple[Callable[[Clip], Kept], Callable[[Kept, tuple[int, ...]], Clip]]:
    """An image a clip, the frames one below the other."""
    return (
        lambda clip: [_image(clip.reshape(-1, *clip.shape[2:]), **options)],
        lambda kept, shape: _pixels(kept[0]).reshape(shape),
    )


def ways() -> list[Way]:
    """All that can be tried here."""
    jpeg = {"format": "JPEG", "subsampling": 0, "optimize": True}
    found = [
        Way(f"ours, quality {q}", lambda c, q=q: [encode_sheet(c, q)], lambda k, s: decode_sheet(k[0], s[0]))  # type: ignore[misc]
        for q in (80, 90, 95)
    ]
    found += [
        Way("JPEG a frame, 90", *_each(**jpeg, quality=90)),
        Way("JPEG sheet, 90, 4:2:0", *_sheet(format="JPEG", quality=90, optimize=True)),
        Way("WebP sheet, 90", *_sheet(format="WEBP", quality=90, method=4)),
        Way("PNG sheet", *_sheet(format="PNG")),
        Way(
            "raw, zlib 1",
            lambda clip: [zlib.compress(clip.tobytes(), 1)],
            lambda kept, shape: np.frombuffer(zlib.decompress(kept[0]), np.uint8).reshape(shape),
        ),
    ]
    try:
        import simplejpeg
    except ImportError:
        return found

    def encode(clip: Clip) -> Kept:
        pixels = np.ascontiguousarray(clip.reshape(-1, *clip.shape[2:]))
        return [simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="444")]

    return [
        *found,
        Way("simplejpeg sheet, 90", encode, lambda k, s: simplejpeg.decode_jpeg(k[0]).reshape(s)),
    ]


def clips_of(manifest: str, videos: int, num_frames: int, size: int) -> list[Clip]:
    """Decoded clips of some videos, four of each at most."""
    spec, view = ClipSpec(num_frames=num_frames), ViewSpec(width=size, height=size)
    rows = read_entries(manifest)["uri"].to_pylist()
    found = []
    for uri in rows[:: max(1, len(rows) // videos)][:videos]:
        spans = clip_spans(0, probe(uri).duration_us, spec)[:4]
        found += [c.frames_VTHWC[0] for c in PyAVDecoder().decode(uri, spans, view, DecodeSpec())]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    clips = clips_of(args.manifest, args.videos, args.frames, args.size)
    times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways()}
    facts = {}
    for _ in range(args.rounds):
        for way in ways():
            started = time.perf_counter()
            kept = [way.encode(clip) for clip in clips]
            between = time.perf_counter()
            back = [way.decode(k, clip.shape) for k, clip in zip(kept, clips, strict=True)]
            ended = time.perf_counter()
            times[way.name].append((between - started, ended - between))
            error = np.mean([np.abs(b.astype(int) - c).mean() for b, c in zip(back, clips, strict=True)])
            facts[way.name] = (sum(len(d) for k in kept for d in k) / len(clips), float(error))
    print(f"{len(clips)} clips of {args.frames} frames of {args.size}x{args.size}")
    print(f"{'':24s} {'bytes':>8s} {'encode ms':>10s} {'decode ms':>10s} {'error':>6s}")
    for name, measured in times.items():
        encode, decode = (statistics.median(t[i] for t in measured) * 1e3 / len(clips) for i in (0, 1))
        print(f"{name:24s} {facts[name][0]:8.0f} {encode:10.3f} {decode:10.3f} {facts[name][1]:6.2f}")


if __name__ == "__main__":
    main()
