"""Is the memory of driver, workers and decode actors bounded? One very long video, and very many tiny ones.

    python -m bench.bounds long OUT [--hours 3]       # 1080p, a short film looped by stream copy
    python -m bench.bounds many OUT [--files 100000]  # tiny files of different bytes

Each runs ``locum teach`` with a tiny teacher, in a process of its own, and samples the resident memory (less what is
shared) of the driver, of the workers and of the decode actors: the peak of each in four quarters of the run. Bounded
means that the last quarter holds about what the second did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path

import psutil

from cluster.decode_actor import resident_bytes

ROOT = Path(__file__).resolve().parent.parent
MARK = "LOCUM_BOUNDS_BENCH"
TITLES = {"worker": "ray::Worker", "decode actor": "ray::DecodeActor"}
TEACHER = [
    "--teacher.factory",
    f"{ROOT / 'tests' / 'tiny.py'}:build",
    "--view.width",
    "64",
    "--view.height",
    "48",
]


def loop(out: Path, hours: float) -> Path:
    """A 1080p film of so many hours: a short one, copied packet by packet with later times."""
    import av

    from tests.video_files import constant, encode

    piece, film = out / "piece.mp4", out / "film.mp4"
    if film.exists():
        return film
    encode(piece, constant(1500), size=(1920, 1080), options={"preset": "ultrafast", "g": "50"})
    with av.open(str(piece)) as source, av.open(str(out / "part.mp4"), "w") as into:
        stream = source.streams.video[0]
        packets = [p for p in source.demux(stream) if p.dts is not None]
        length = sum(p.duration for p in packets)
        target = into.add_stream_from_template(stream)
        repeats = round(hours * 3600 / float(length * stream.time_base))
        data = [(bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in packets]
        for n in range(repeats):
            for body, pts, dts, duration, key in data:
                packet = av.Packet(body)
                packet.pts, packet.dts, packet.duration = pts + n * length, dts + n * length, duration
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, target, key
                into.mux(packet)
    os.replace(out / "part.mp4", film)
    return film


def scatter(out: Path, files: int) -> Path:
    """Tiny videos: one, and a free box of other bytes at each one's end."""
    from tests.video_files import constant, encode

    folder = out / "many"
    folder.mkdir(exist_ok=True)
    piece = out / "tiny.mp4"
    encode(piece, constant(25), size=(64, 48), options={"preset": "ultrafast"})
    body = piece.read_bytes()
    for n in range(files):
        path = folder / f"{n // 1000:03d}" / f"{n:06d}.mp4"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(body + (24).to_bytes(4, "big") + b"free" + n.to_bytes(16, "big"))
    return folder


def watch(command: list[str]) -> tuple[int, float, dict[str, list[tuple[float, float]]]]:
    """Exit code, seconds, and (seconds, megabytes) of the largest process of each kind."""
    mark = uuid.uuid4().hex
    started = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, MARK: mark, "PYTHONPATH": str(ROOT)})
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    while child.poll() is None:
        time.sleep(1.0)
        at, largest = time.monotonic() - started, defaultdict[str, float](float)
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) != mark:
                    continue
                title = " ".join(process.cmdline())
                kind = next((k for k, t in TITLES.items() if t in title), None)
                kind = "driver" if process.pid == child.pid else kind
                if kind is not None:
                    largest[kind] = max(largest[kind], resident_bytes(process.pid) / 1e6)
            except psutil.Error:
                continue
        for kind, megabytes in largest.items():
            seen[kind].append((at, megabytes))
    return child.returncode, time.monotonic() - started, seen


def quarters(samples: list[tuple[float, float]]) -> list[float]:
    """The peak of each quarter of the time in which there were samples."""
    first, last = samples[0][0], samples[-1][0]
    peaks = [0.0] * 4
    for at, megabytes in samples:
        quarter = min(3, int(4 * (at - first) / max(last - first, 1e-9)))
        peaks[quarter] = max(peaks[quarter], megabytes)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["long", "many"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--workers", default="2")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))
    source = loop(args.out, args.hours) if args.what == "long" else scatter(args.out, args.files)
    clip = ["--clip.num-frames", "4", "--clip.seconds", "2" if args.what == "long" else "1"]
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "teach",
        str(source),
        "-o",
        str(args.out / args.what / "out"),
    ]
    command += [*TEACHER, *clip, "--workers", args.workers, "--batch-size", "16", "--json"]
    code, seconds, seen = watch(command)
    print(json.dumps({"exit code": code, "seconds": round(seconds)}))
    print("peak MB by quarters of its time")
    for kind, samples in sorted(seen.items()):
        print(f"{kind:13s} " + " ".join(f"{p:7.0f}" for p in quarters(samples)))


if __name__ == "__main__":
    main()
