"""Kill a teach command with SIGKILL at random moments, resume it, and compare with an uninterrupted run.

    python -m bench.kill_resume --kills 20 --out /tmp/kr -- ../archive/manifest.csv --teacher.factory …

What follows ``--`` are the source and the flags of ``locum teach``, without ``-o``. Prints what was killed, how many
shards were computed twice, and whether keys and values are equal bit for bit (timings excluded). Exit code 1 where not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify


def run_whole(flags: list[str], out: Path) -> float:
    """Run without interruption; seconds it took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobs.cli", "teach", *flags, "-o", str(out), "--quiet"], check=True)
    return time.perf_counter() - started


def run_killed(
    flags: list[str], out: Path, kills: int, most_seconds: float, seed: int
) -> list[tuple[float, int]]:
    """Kill ``kills`` runs, each at a random moment, then let one end. (seconds lived, shards there) of each."""
    rng = random.Random(seed)
    killed: list[tuple[float, int]] = []
    command = [sys.executable, "-m", "jobs.cli", "teach", *flags, "-o", str(out), "--quiet"]
    while len(killed) < kills:
        lives = rng.uniform(0.5, most_seconds)
        child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            child.wait(timeout=lives)
            break
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        killed.append((lives, len(list(out.glob("targets-*/data/*.parquet")))))
        print(f"kill {len(killed)} after {lives:.1f} s: {killed[-1][1]} shards there", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return killed


def only_store(out: Path) -> ShardStore:
    (found,) = out.glob("targets-*")
    return ShardStore.open(str(found))


def values(store: ShardStore) -> pa.Table:
    """All rows, less what they took."""
    table = read(store)
    return table.select([c for c in table.column_names if not c.endswith("_ms")])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--most-seconds", type=float, help="longest life of a killed run; by default enough for some shards"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    flags = [f for f in args.flags if f != "--"]
    seconds = run_whole(flags, args.out / "whole")
    most = args.most_seconds or 8.0 + 2.0 * seconds / args.kills
    killed = run_killed(flags, args.out / "killed", args.kills, most, args.seed)
    whole, resumed = only_store(args.out / "whole"), only_store(args.out / "killed")
    proof = verify(resumed)
    equal = values(whole).equals(values(resumed))
    c = proof.counts
    print(f"uninterrupted {seconds:.1f} s; {len(killed)} kills")
    print(f"{c.rows} rows + {c.quarantined_rows} quarantined of {c.planned} planned; clean {proof.clean}")
    print(f"complete {c.complete}; values bit-equal to the uninterrupted run: {equal}")
    return 0 if equal and proof.clean and c.complete else 1


if __name__ == "__main__":
    sys.exit(main())
