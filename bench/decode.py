"""Decoding: source frames per CPU second, and frames right, for our decoders and their peers.

Ours are PyAVDecoder, DecordDecoder and TorchCodecDecoder; 'decord', 'torchcodec' and 'ffmpeg pipe' are what one would
write with these alone.

    python bench/decode.py [--rounds 5] [--files a.mp4 ...] [--exact-only | --speed-only]

The work is the same for all: 16 frames of each 2 s clip of a file, as 112 x 112 RGB, one decode thread. CPU
seconds are of this process and of the children it waited for. Rounds are interleaved; the ratio is the median
of the rounds' own ratios to PyAVDecoder. Peers that are not installed are left out, and said to be.

The second table asks for every third frame of files with traps, by time, and counts those whose number (drawn
into the pixels) is right; 'refused' is said where a decoder names the case in which it is known to be wrong. Each peer
reads each file in a process of its own, which is ended after 20 s; in the first table each peer has one process, for
decord and torchcodec crash one another.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import numpy as np

from pipeline.video.backends import decoder_for
from pipeline.video.known_wrong import REFUSED
from pipeline.video.probe import probe
from schemas.clip import ClipSpan, ClipSpec, clip_spans
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec
from tests.video_files import make, read_number

SIZE = 112
TRAPS = (
    "h264_b.mp4",
    "vfr.mp4",
    "vfr_hold.mkv",
    "open_gop.mp4",
    "open_gop.ts",
    "mpeg4_b.avi",
    "h264_b.avi",
    "trimmed.mp4",
    "ten_bit.mp4",
    "vp9.webm",
)
TIMEOUT_SECONDS = 20
Frames = list[np.ndarray]


def with_ours(backend: str, path: str, times_us: list[int]) -> Frames:
    spans = [ClipSpan(time, time + 1, (time,)) for time in sorted(set(times_us))]
    spec = DecodeSpec(backend=backend)  # type: ignore[arg-type]
    clips = decoder_for(spec).decode(path, spans, ViewSpec(width=SIZE, height=SIZE), spec)
    frames = {clip.span.start_us: clip.frames_VTHWC[0, 0] for clip in clips}
    return [frames[time] for time in times_us]


def with_decord(path: str, times_us: list[int]) -> Frames:
    import decord

    reader = decord.VideoReader(path, decord.cpu(0), width=SIZE, height=SIZE, num_threads=1)
    starts = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    starts_us = np.round((starts - starts[0]) * 1e6).astype(np.int64)
    places = np.clip(np.searchsorted(starts_us, np.array(times_us) + 1, side="right") - 1, 0, None)
    return list(reader.get_batch(places).asnumpy())


def with_torchcodec(path: str, times_us: list[int]) -> Frames:
    import torch
    from torchcodec.decoders import VideoDecoder

    torch.set_num_threads(1)
    reader = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
    first = reader.metadata.begin_stream_seconds or 0.0
    seconds = [first + (time + 1) / 1e6 for time in times_us]
    frames = []
    for start in range(0, len(seconds), 16):
        batch = reader.get_frames_played_at(seconds[start : start + 16]).data.float()
        small = torch.nn.functional.interpolate(batch, (SIZE, SIZE), mode="bilinear", antialias=True)
        frames += list(small.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    return frames


def with_ffmpeg(path: str, times_us: list[int]) -> Frames:
    """Every frame through a pipe, then those wanted by number at the average rate: blind to time."""
    command = [
        "ffmpeg",
        "-v",
        "fatal",
        "-threads",
        "1",
        "-i",
        path,
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    command += ["-vf", f"scale={SIZE}:{SIZE}:flags=bilinear", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    frames = np.frombuffer(output.stdout, np.uint8).reshape(-1, SIZE, SIZE, 3)
    frame_us = probe(path).duration_us / len(frames)
    return [frames[min(int(time / frame_us + 1e-6), len(frames) - 1)].copy() for time in times_us]


PEERS: dict[str, Callable[[str, list[int]], Frames]] = {
    "PyAVDecoder": partial(with_ours, "pyav"),
    "DecordDecoder": partial(with_ours, "decord"),
    "TorchCodecDecoder": partial(with_ours, "torchcodec"),
    "decord": with_decord,
    "torchcodec": with_torchcodec,
    "ffmpeg pipe": with_ffmpeg,
}


def is_there(peer: str) -> bool:
    if peer == "ffmpeg pipe":
        return shutil.which("ffmpeg") is not None
    library = {"PyAVDecoder": "av", "DecordDecoder": "decord", "TorchCodecDecoder": "torchcodec"}.get(
        peer, peer
    )
    return importlib.util.find_spec(library) is not None


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def scenery(path: Path, width: int, height: int, seconds: int) -> None:
    """A file of moving, noisy pictures at 30 frames a second, H.264, a keyframe every 12 frames."""
    rng = np.random.default_rng(0)
    field = rng.integers(0, 256, (height // 8 + 64, width // 8 + 64, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    partial = path.with_suffix(".part.mp4")
    with av.open(partial, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 12
        for n in range(30 * seconds):
            y, x = (n * 2) % 400, (n * 3) % 400
            picture = field[y : y + height, x : x + width] // 2 + rng.integers(
                0, 24, (height, width, 1), np.uint8
            )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    partial.replace(path)


def _spent(peer: str, path: str, times_us: list[int]) -> float:
    began = cpu_seconds()
    PEERS[peer](path, times_us)
    return cpu_seconds() - began


def speed(files: list[Path], peers: list[str], rounds: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    pools = {peer: ProcessPoolExecutor(1, mp_context=spawn) for peer in peers}
    print(f"{'file':24s} {'peer':17s} {'frames/CPU s':>12s} {'of PyAVDecoder':>15s}")
    for path in files:
        info = probe(str(path))
        spans = clip_spans(0, info.duration_us, ClipSpec())
        times = [time for span in spans for time in span.times_us]
        rates: dict[str, list[float]] = {peer: [] for peer in peers}
        for peer in peers:  # caches warm, libraries loaded
            pools[peer].submit(_spent, peer, str(path), times[:16]).result()
        for round_ in range(rounds):
            for peer in peers[round_ % len(peers) :] + peers[: round_ % len(peers)]:
                spent = pools[peer].submit(_spent, peer, str(path), times).result()
                rates[peer].append((info.num_frames or 0) / spent)
        for peer in peers:
            ratios = [a / b for a, b in zip(rates[peer], rates["PyAVDecoder"], strict=True)]
            rate, ratio = statistics.median(rates[peer]), statistics.median(ratios)
            print(f"{path.name:24s} {peer:17s} {rate:12.0f} {ratio:15.2f}", flush=True)
    for pool in pools.values():
        pool.shutdown()


def _count_right(peer: str, path: str, shown: list[tuple[int, int]], answer: Any) -> None:
    right = 0
    try:
        frames = PEERS[peer](path, [time for time, _ in shown])
    except VideoError as error:
        if error.cause != REFUSED:
            raise
        answer.put("refused")
        return
    for frame, (_, number) in zip(frames, shown, strict=True):
        with contextlib.suppress(ValueError):
            right += read_number(frame) == number
    answer.put(f"{right}/{len(shown)}")


def exactness(folder: Path, peers: list[str]) -> None:
    print(f"\n{'frames right / asked':24s} " + " ".join(f"{peer:>17s}" for peer in peers))
    spawn = multiprocessing.get_context("spawn")
    for name in TRAPS:
        file = make(name, folder)
        asked = list(file.shown[::3])
        cells = []
        for peer in peers:
            answer = spawn.Queue()
            task = spawn.Process(target=_count_right, args=(peer, str(file.path), asked, answer))
            task.start()
            task.join(TIMEOUT_SECONDS)
            if task.is_alive():
                task.kill()
                task.join()
                cells.append("hangs")
            elif task.exitcode:
                cells.append("error")
            else:
                cells.append(answer.get())
        print(f"{name:24s} " + " ".join(f"{cell:>17s}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("--exact-only", action="store_true")
    parser.add_argument("--speed-only", action="store_true")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if is_there(peer)]
    print("not installed:", ", ".join(sorted(set(PEERS) - set(peers))) or "none")
    folder = Path(tempfile.gettempdir()) / "locum-bench-decode"
    folder.mkdir(exist_ok=True)
    if not options.exact_only:
        files = [folder / "320x240-gop12.mp4", folder / "720p-gop12.mp4"]
        for path, size in zip(files, ((320, 240, 20), (1280, 720, 6)), strict=True):
            if not path.exists():
                scenery(path, *size)
        try:
            speed(files + options.files, peers, options.rounds)
        except VideoError as error:
            sys.exit(f"cannot read: {error}")
    if not options.speed_only:
        exactness(folder, peers)


if __name__ == "__main__":
    main()
