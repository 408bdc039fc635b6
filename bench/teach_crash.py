"""After a crash: kill a job with SIGKILL soon after half its rows are written, run it again, and count.

    python -m bench.teach_crash [--contenders local,ray,ray_data_checkpoint,ray_data_checkpoint_clips] [--rounds 3]

The kill comes up to two seconds after that, at random, so that no moment of a job is favoured. What is killed is the
driver with its whole process group and, at once after, everything else that it started: the machine is gone. Then the
same command runs to its end. In the table:

``there``       rows in finished files when it was killed
``lost``        rows that are missing in the end; ``doubled`` rows that are there twice or more
``recomputed``  clips that the teacher scored, in both lives, beyond those that there are
``lived s``     until the kill; ``again s``: the second life, in a fresh process; ``said``: its word on how it went
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.teach import Case, make_case, missing, parse_options
from bench.teach_peers.marks import Mark
from bench.teach_peers.processes import last_words, run
from bench.teach_peers.rows import count_rows, rows_of
from bench.teach_peers.work import Work

CONTENDERS = ("local", "ray", "ray_data_checkpoint", "ray_data_checkpoint_clips")
Record = dict[str, Any]


def crash(
    case: Case, contender: str, share: float, delay: float, options: dict[str, int], timeout_seconds: float
) -> Record:
    """One life until ``delay`` seconds after a share of the rows is there, then another to the end."""
    with tempfile.TemporaryDirectory(prefix="locum-bench-crash-") as folder:
        out = Path(folder) / "out"
        spec = case.spec.model_dump(mode="json")
        work = Work(
            videos=str(case.archive.table),
            index=case.index,
            out=str(out),
            spec=spec,
            options=options,
            checkpoint=str(Path(folder) / "checkpoint"),
        )
        wanted = share * case.archive.clips

        reached: list[float] = []

        def enough(_marks: list[Mark]) -> bool:
            if not reached and count_rows(out) >= wanted:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() >= reached[0] + delay

        first = run(contender, work, timeout_seconds, enough)
        there = count_rows(out)
        second = run(contender, work, timeout_seconds)
        rows = rows_of(out, case.archive.starts_us)
    scored = sum(mark.clips for mark in first.marks + second.marks)
    return {
        "contender": contender,
        "killed": first.killed,
        "there": there,
        "expected": case.archive.clips,
        "lost": case.archive.clips - len(rows.good),
        "doubled": rows.doubled,
        "unknown": rows.unknown,
        "recomputed": scored - len(rows.good),
        "lived_s": first.seconds,
        "again_s": second.seconds,
        "died": second.died or ("" if first.killed else first.died),
        "words": last_words(second if second.died else first) if second.died or first.died else "",
    }


def say(record: Record) -> str:
    verdict = record["died"] or (
        "success" if record["killed"] else "success, but it was over before the kill"
    )
    return (
        f"{record['contender']:26s} {record['there']:6d} {record['lost']:5d} {record['doubled']:7d} "
        f"{record['recomputed']:10d} {record['lived_s']:8.1f} {record['again_s']:8.1f}  {verdict} {record['words']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher", default="light")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument("--share", type=float, default=0.5, help="of the rows, when it is killed")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--option", action="append", default=[], help="CONTENDER.NAME=NUMBER, its tuning")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "locum-bench-teach")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that contenders are ended too
    wanted = args.contenders.split(",")
    if unknown := set(wanted) - set(CONTENDERS):
        sys.exit(f"there is no contender {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    contenders = [contender for contender in wanted if not missing(contender)]
    for contender in wanted:
        if reason := missing(contender):
            print(f"{contender} is left out: {reason}")
    width, height = map(int, args.size.split("x"))
    case = make_case(args.data / "crash", args.teacher, (width, height), args.videos, 0.0)
    print(
        f"{case.name}: {case.archive.videos} videos, {case.archive.clips} clips; killed at {args.share:.0%}"
    )
    print(
        f"{'':26s} {'there':>6s} {'lost':>5s} {'doubled':>7s} {'recomputed':>10s} {'lived s':>8s} "
        f"{'again s':>8s}  said"
    )
    options = parse_options(args.option)
    records = []
    rng = random.Random(1)
    for _ in range(args.rounds):
        delay = rng.uniform(0.0, 2.0)
        for contender in contenders:
            record = crash(case, contender, args.share, delay, options.get(contender, {}), args.timeout)
            records.append(record)
            print(say(record), flush=True)
            time.sleep(1.0)  # what was killed gives its memory back
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
