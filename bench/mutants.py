"""Mutants of real videos: the job must never crash, and each must end as rows or in quarantine.

    python -m bench.mutants --count 300 --out /tmp/mutants --source ../archive -- --teacher.factory …

Mutants are seeded: flipped bits, a hole of zeros, a missing block, a swapped block, a cut end, a cut beginning, noise
over the header, two files joined. What follows ``--`` are the flags of ``locum teach``, without source and ``-o``. Exit
code 1 where a planned clip is unaccounted for, the store is not clean, or the command failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify

VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".ts", ".mpg"}


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 10, 100, 1000])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def zero_hole(data: bytearray, rng: random.Random) -> bytearray:
    start, size = _block(data, rng)
    data[start : start + size] = bytes(size)
    return data


def missing_block(data: bytearray, rng: random.Random) -> bytearray:
    start, size = _block(data, rng)
    del data[start : start + size]
    return data


def swapped_block(data: bytearray, rng: random.Random) -> bytearray:
    start, size = _block(data, rng)
    other = rng.randrange(max(1, len(data) - size))
    data[start : start + size], data[other : other + size] = (
        data[other : other + size],
        data[start : start + size],
    )
    return data


def cut_end(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def cut_beginning(data: bytearray, rng: random.Random) -> bytearray:
    return data[rng.randrange(len(data)) :]


def noisy_header(data: bytearray, rng: random.Random) -> bytearray:
    for i in range(min(len(data), 4096)):
        if rng.random() < 0.02:
            data[i] = rng.randrange(256)
    return data


def joined(data: bytearray, rng: random.Random) -> bytearray:
    half = rng.randrange(len(data))
    return data[:half] + data


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    flip_bits,
    zero_hole,
    missing_block,
    swapped_block,
    cut_end,
    cut_beginning,
    noisy_header,
    joined,
)


def _block(data: bytearray, rng: random.Random) -> tuple[int, int]:
    size = min(len(data), rng.choice([64, 1024, 16384]))
    return rng.randrange(len(data) - size + 1), size


def make_mutants(sources: list[Path], folder: Path, count: int, seed: int) -> list[tuple[Path, str]]:
    """``count`` files in ``folder``, with the name of what was done to each."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        source, mutate = rng.choice(sources), MUTATIONS[number % len(MUTATIONS)]
        path = folder / f"{number:04d}-{mutate.__name__}{source.suffix}"
        path.write_bytes(mutate(bytearray(source.read_bytes()), rng))
        made.append((path, mutate.__name__))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--source", type=Path, action="append", required=True, help="folder of videos")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    sources = sorted(p for s in args.source for p in s.rglob("*") if p.suffix.lower() in VIDEOS)
    mutants = make_mutants(sources, args.out / "mutants", args.count, args.seed)
    command = [sys.executable, "-m", "jobs.cli", "teach", str(args.out / "mutants"), "-o", str(args.out)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--quiet", "--json", *(f for f in args.flags if f != "--")],
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    print(
        f"{len(mutants)} mutants of {len(sources)} videos: exit code {done.returncode} after {seconds:.0f} s"
    )
    if done.returncode:
        return 1
    store = ShardStore.open(json.loads(done.stdout)["store"])
    proof = verify(store)
    c = proof.counts
    whole = Counter(Path(u).name for u in read(store, ["uri"])["uri"].to_pylist())
    failed = {Path(f.uri).name: f for _, f in failures(store)}
    digests = {p.name: hashlib.sha256(p.read_bytes()).digest() for p, _ in mutants}
    known = {digests[n] for n in [*whole, *failed]}  # equal files are one video
    lost = [n for n, digest in digests.items() if digest not in known]
    print(f"{c.rows} rows + {c.quarantined_rows} quarantined of {c.planned} planned; clean {proof.clean}")
    print(f"{'':<16}{'mutants':>8}{'rows':>8}{'damaged, rows kept':>20}{'no rows':>9}")
    for mutate in MUTATIONS:
        names = [p.name for p, kind in mutants if kind == mutate.__name__]
        with_rows = [n for n in names if whole[n]]
        kept = sum(n in failed for n in with_rows)
        row = f"{mutate.__name__:<16}{len(names):>8}{len(with_rows) - kept:>8}{kept:>20}"
        print(row + f"{sum(n in failed and not whole[n] for n in names):>9}")
    print(
        "reasons:", ", ".join(f"{n} {e}" for e, n in Counter(f.error for f in failed.values()).most_common())
    )
    print(f"unaccounted for: {lost or 'none'}")
    return 0 if proof.clean and c.complete and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
