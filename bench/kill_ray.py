"""SIGKILL driver, workers and decode actors of a teach or label command on Ray at random moments, and compare the end.

    python -m bench.kill_ray --kills 50 --out /tmp/kr -- teach ../archive/manifest.csv --teacher.factory …
    python -m bench.kill_ray --kills 20 --out /tmp/kl -- label ../archive/manifest.csv --student … --policy …

What follows ``--`` is the command of ``locum``, without ``-o``. A killed driver is started again;
killed actors are the run's own affair. Prints what was killed, and whether keys and values equal those of a run
without kills (bit for bit; else the largest difference of a logit), whether `verify` is clean, what was computed
twice, and which processes are left. Exit code 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from bench.kill_resume import values
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify

MARK = "LOCUM_KILL_BENCH"
KINDS = {"teach": "targets-*", "label": "*labels-*"}
"""The stores that a command fills."""
TITLES = {"worker": "ray::Worker", "decoder": "ray::DecodeActor"}


def processes(mark: str, title: str = "") -> list[psutil.Process]:
    """Living processes of this benchmark whose title holds ``title``."""
    found = []
    for process in psutil.process_iter(["status", "cmdline"]):
        try:
            ours = process.environ().get(MARK) == mark and process.info["status"] != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if ours and title in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def start(command: list[str], mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_at_random(command: list[str], mark: str, kills: int, most_seconds: float, seed: int) -> Counter[str]:
    """Kill until there were ``kills`` of them or the command ended; then let it end."""
    rng, killed = random.Random(seed), Counter[str]()
    child = start(command, mark)
    while killed.total() < kills and child.poll() is None:
        time.sleep(rng.uniform(0.1, most_seconds))
        what = rng.choice(["driver", "worker", "worker", "decoder", "decoder"])
        victims = [psutil.Process(child.pid)] if what == "driver" else processes(mark, TITLES[what])
        if not victims or child.poll() is not None:
            continue
        try:
            rng.choice(victims).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
        killed[what] += 1
        print(f"kill {killed.total()}: {what}", flush=True)
        if what == "driver":
            child.wait()
            child = start(command, mark)
    code = child.wait()
    print(f"the run that was left alone ended with exit code {code}")
    if code == 3:  # a shard had its workers killed too often: that is reported, and run again
        code = start(command, mark).wait()
        print(f"run once more: exit code {code}")
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-seconds", type=float, default=6.0, help="longest time between two kills")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        sys.exit(f"{args.out} is not empty: the run would find its work done")
    flags = [f for f in args.flags if f != "--"]
    if not flags or flags[0] not in KINDS:
        sys.exit(f"name the command first: {' or '.join(KINDS)}")
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "jobs.cli", *flags, "--quiet", "-o"]
    started = time.perf_counter()
    subprocess.run([*command, str(args.out / "whole")], check=True, stdout=subprocess.DEVNULL)
    whole_seconds = time.perf_counter() - started
    started = time.perf_counter()
    killed = kill_at_random(
        [*command, str(args.out / "killed")], mark, args.kills, args.most_seconds, args.seed
    )
    seconds = time.perf_counter() - started
    time.sleep(5.0)
    left = [" ".join(p.cmdline())[:80] for p in processes(mark)]
    print(f"uninterrupted {whole_seconds:.1f} s; with {dict(killed)} killed {seconds:.1f} s")
    print(f"processes left: {left or 'none'}")
    found = [(p.name, ShardStore.open(str(p))) for p in sorted((args.out / "whole").glob(KINDS[flags[0]]))]
    right = [same(name, store, ShardStore.open(str(args.out / "killed" / name))) for name, store in found]
    return 0 if right and all(right) and not left else 1


def same(name: str, whole: ShardStore, resumed: ShardStore) -> bool:
    """Whether the resumed store holds what the uninterrupted one does, and is clean. Says so."""
    proof = verify(resumed)
    a, b = values(whole), values(resumed)
    keys_equal = a.select(["video_id", "start_us"]).equals(b.select(["video_id", "start_us"]))
    worst = 0.0
    for column in (c for c in a.column_names if c.endswith("logits")):
        if keys_equal and not a.equals(b):
            x, y = (np.stack(t[column].drop_null().to_numpy()).astype(np.float64) for t in (a, b))
            worst = max(worst, float(np.abs(x - y).max()) if x.shape == y.shape else np.inf)
    c = proof.counts
    print(f"{name}: {c.rows} rows + {c.quarantined_rows} quarantined of {c.planned}; clean {proof.clean}")
    print(
        f"keys equal: {keys_equal}; values bit-equal: {a.equals(b)}; largest difference of a logit {worst:g}"
    )
    return keys_equal and worst < 1e-2 and proof.clean and c.complete


if __name__ == "__main__":
    sys.exit(main())
