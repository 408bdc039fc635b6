"""Kill a distill command with SIGKILL at random moments, resume it, and compare with an uninterrupted run.

    python -m bench.kill_distill --kills 20 --out /tmp/kd -- out/targets-... --frames out/frames-... --num-threads 1 …

What follows ``--`` are the target stores and the flags of ``locum distill``, without ``-o``. A killed run lives at
least until it has begun to train. Prints what was killed, and whether weights and predictions are equal bit for
bit. Exit code 1 where not."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch


def command(flags: list[str], out: Path) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "distill", *flags, "-o", str(out), "--quiet"]


def student_in(out: Path) -> Path:
    (found,) = out.glob("student-*")
    return found


def run_killed(flags: list[str], out: Path, kills: int, most_seconds: float, seed: int) -> int:
    """Kill runs, each at a random moment, then let one end. Number of kills."""
    rng = random.Random(seed)
    for number in range(1, kills + 1):
        lives = rng.uniform(0.5, most_seconds)
        child = subprocess.Popen(command(flags, out), start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            child.wait(timeout=lives)
            print(f"done before kill {number}: a longer training, or a smaller --most-seconds, is wanted")
            return number - 1
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        steps = [int(p.stem.removeprefix("step-")) for p in out.glob("student-*/*/checkpoints/step-*.json")]
        print(f"kill {number} after {lives:.1f} s: checkpoint of step {max(steps, default=0)}", flush=True)
    subprocess.run(command(flags, out), check=True, stdout=subprocess.DEVNULL)
    return kills


def differences(first: Path, second: Path) -> list[str]:
    """What is not the same in two students' folders, times aside."""
    found = []
    a, b = (safetensors.torch.load_file(p / "student.safetensors") for p in (first, second))
    if a.keys() != b.keys() or not all(torch.equal(a[k], b[k]) for k in a):
        found.append("weights")
    for path in sorted((first / "predictions").iterdir()):
        if not pq.read_table(path).equals(pq.read_table(second / "predictions" / path.name)):
            found.append(f"predictions/{path.name}")
    for name in ("evaluation", "heads", "best_epoch"):
        x, y = (json.loads((p / "student.json").read_text())[name] for p in (first, second))
        if x != y:
            found.append(name)
    if left := [p.name for p in second.iterdir() if p.name == "work"]:
        found.append(f"left behind: {left}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--most-seconds", type=float, help="longest life of a killed run; by default that of a whole one"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        raise SystemExit(f"{args.out} is not empty")
    flags = [f for f in args.flags if f != "--"]
    started = time.perf_counter()
    subprocess.run(command(flags, args.out / "whole"), check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - started
    print(f"uninterrupted: {whole:.1f} s", flush=True)
    kills = run_killed(flags, args.out / "killed", args.kills, args.most_seconds or whole, args.seed)
    found = differences(student_in(args.out / "whole"), student_in(args.out / "killed"))
    print(f"{kills} kills; " + ("bit-equal" if not found else "different: " + ", ".join(found)))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
