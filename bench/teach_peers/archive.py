"""The videos of the benchmark: encoded once into a folder, then copied as often as are wanted, each copy other bytes.

H.264, 25 frames a second, a keyframe every 12 frames, two B-frames, 4 to 10 s, textures of the demo that drift over
each other under a little noise. A copy ends in a 'free' box of its own, which decoders skip, so that nobody (Locum
names files by content) can take two copies for one. Some may be poisoned: cut in half, text, or empty.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.demo.texture import background_HWC
from pipeline.video.probe import probe
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import VideoError

RATE = 25
POOL = 8
POISONS = ("cut", "text", "empty")


@dataclass(frozen=True)
class Archive:
    """Videos on disk. ``table`` and ``manifest`` name all, ``starts_us`` the clips of each sound one, by file name."""

    table: Path
    manifest: Path
    videos: int
    poisoned: int
    starts_us: dict[str, list[int]]

    @property
    def clips(self) -> int:
        return sum(map(len, self.starts_us.values()))


def make_archive(folder: Path, size: tuple[int, int], videos: int, poison: float) -> Archive:
    """``videos`` files of ``size``, made anew below ``folder``; a share ``poison`` of them (one at least) is bad."""
    pool = [_pooled(folder / f"pool-{size[0]}x{size[1]}", size, i) for i in range(min(POOL, videos))]
    place = folder / f"set-{size[0]}x{size[1]}-{videos}-{poison:g}"
    shutil.rmtree(place, ignore_errors=True)
    (place / "videos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    bad = set(rng.choice(videos, max(1, round(poison * videos)), replace=False).tolist() if poison else [])
    rows: list[dict[str, object]] = []
    starts: dict[str, list[int]] = {}
    for i in range(videos):
        path = place / "videos" / f"v{i:05d}.mp4"
        content = pool[i % len(pool)].read_bytes() + _free_box(i)
        kind = POISONS[sorted(bad).index(i) % len(POISONS)] if i in bad else ""
        path.write_bytes(_poisoned(content, kind))
        rows.append({"uri": str(path), "duration_us": (duration := _duration_us(path))})
        if not kind and duration is not None:
            starts[path.name] = [span.start_us for span in clip_spans(0, duration, ClipSpec())]
    schema = pa.schema([("uri", pa.string()), ("duration_us", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), place / "videos.parquet")
    (place / "manifest.csv").write_text("uri\n" + "".join(f"{row['uri']}\n" for row in rows))
    return Archive(place / "videos.parquet", place / "manifest.csv", videos, len(bad), starts)


def _poisoned(content: bytes, kind: str) -> bytes:
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "text":
        return b"<html><body>404 not found</body></html>\n" * 200
    return b"" if kind == "empty" else content


def _free_box(number: int) -> bytes:
    body = number.to_bytes(8, "big")
    return (8 + len(body)).to_bytes(4, "big") + b"free" + body


def _duration_us(path: Path) -> int | None:
    try:
        return probe(str(path)).duration_us
    except VideoError:
        return None


def _pooled(folder: Path, size: tuple[int, int], number: int) -> Path:
    """The pool's video of that number, encoded where it is not there."""
    path = folder / f"{number:03d}.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.mp4")
    _encode(partial, size, seed=number, frames=RATE * (4 + (number * 5) % 7))
    partial.replace(path)
    return path


def _encode(path: Path, size: tuple[int, int], seed: int, frames: int) -> None:
    width, height = size
    rng = np.random.default_rng(seed)
    far, near = (background_HWC(rng, height + 128, width + 128).astype(np.uint16) for _ in range(2))
    grain = rng.integers(0, 12, (height + 64, width + 64, 1), np.uint8)
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for n in range(frames):
            picture = (_window(far, size, n, n // 2) // 2 + _window(near, size, 128 - n, 2 * n) // 2).astype(
                np.uint8
            )
            noise = _window(grain, size, *rng.integers(0, 64, 2).tolist(), span=64)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture + noise), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _window(field: np.ndarray, size: tuple[int, int], x: int, y: int, span: int = 128) -> np.ndarray:
    """A part of ``field`` that swings to and fro as x and y grow."""
    left, top = span - abs(x % (2 * span) - span), span - abs(y % (2 * span) - span)
    return field[top : top + size[1], left : left + size[0]]
