"""Teaching, end to end: clips a second from encoded files to Parquet, for Locum's runners and their peers.

    python -m bench.teach --rounds 5 --teacher light,heavy --size 320x240,1280x720 --seconds 15 [--poison 0.02] \
        [--contenders ideal,local,…] [--json results.json]

Every contender does the same job (see `bench.teach_peers`) in processes of its own, with the files in the page cache,
in batches of 16 clips: what Locum's probe chooses for the light teacher, so that no contender gains by it alone.
Each round runs all of them once, in an order that moves on by one. In the tables:

``work/s``    clips a second, from the first work until all rows are written; median over the rounds
``steady/s``  the same from when a tenth of the clips are scored; `bench.teach_peers.measure` says what each hides
``of ideal``  after each: median of the rounds' own ratios to ``ideal``'s, and the 95 % lower bound of that median
``wall s``    median seconds of the whole process, with imports, start and shutdown
``good/s``    rows of sound videos by that wall time
``peak MiB``  largest sum of the proportional set sizes of all its processes
``rows``      rows of sound videos, of those that there should be, in the worst round
``extra``     rows too many: doubled, or of no clip that there should be
``top1``      share of rows whose top1 is that of ``ideal``
``logits``    root mean square difference of the logits from ideal's, by their standard deviation over clips

A contender that dies scores what it had written.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import math
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.teach_peers.archive import Archive, make_archive
from bench.teach_peers.measure import lower_bound, median, paired_ratios, steady_rate, work_rate
from bench.teach_peers.processes import Run, last_words, run
from bench.teach_peers.rows import Rows, difference, rows_of
from bench.teach_peers.work import Work
from jobs.index import index
from pipeline.models.resolve import resolve_targets
from schemas.model import InputSpec, ModelRef
from schemas.targets import TargetSpec

CONTENDERS = (
    "ideal",
    "ideal_kept",
    "local",
    "ray",
    "ray_data_expert",
    "ray_data_docs",
    "daft",
    "dataloader",
    "dataloader_default",
)
NEEDS = {"ray": "cluster.runner", "daft": "daft"} | dict.fromkeys(
    ("ray_data_expert", "ray_data_docs", "ray_data_checkpoint", "ray_data_checkpoint_clips"), "ray.data"
)
PILOT_VIDEOS = 8
Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One cell of the matrix, with its videos on disk and Locum's index of them."""

    name: str
    spec: TargetSpec
    archive: Archive
    index: str
    batch_size: int = 16

    def work(self, out: Path, options: dict[str, int]) -> Work:
        spec = self.spec.model_dump(mode="json")
        return Work(str(self.archive.table), self.index, str(out), spec, self.batch_size, options)


def spec_of(teacher: str) -> TargetSpec:
    """Sixteen frames of 112 x 112 every two seconds, float32."""
    centred = InputSpec(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
    ref = ModelRef(factory=f"bench.teach_peers.models:{teacher}", num_classes=400, input=centred)
    return resolve_targets(TargetSpec(teacher=ref))


def missing(contender: str) -> str:
    """Why a contender cannot run here; empty where it can."""
    needed = NEEDS.get(contender)
    try:
        there = needed is None or importlib.util.find_spec(needed) is not None
    except ModuleNotFoundError:
        there = False
    return "" if there else f"there is no module {needed}"


def make_case(data: Path, teacher: str, size: tuple[int, int], videos: int, poison: float) -> Case:
    archive = make_archive(data, size, videos, poison)
    indexes = archive.table.parent / "index"
    store = index(str(archive.manifest), str(indexes)).store
    return Case(f"{teacher} {size[0]}x{size[1]}", spec_of(teacher), archive, store.url)


def sized_case(data: Path, teacher: str, size: tuple[int, int], seconds: float, poison: float) -> Case:
    """As many videos as ``ideal`` needs so many seconds for, by a pilot."""
    pilot = make_case(data, teacher, size, PILOT_VIDEOS, 0.0)
    record = run_once(pilot, "ideal", {}, timeout_seconds=600)
    if record["work_rate"] is None:
        sys.exit(f"the pilot failed: {record['died']}\n{record['words']}")
    clips_a_video = pilot.archive.clips / PILOT_VIDEOS
    videos = max(PILOT_VIDEOS, math.ceil(record["work_rate"] * seconds / clips_a_video))
    return make_case(data, teacher, size, videos, poison)


def run_once(
    case: Case, contender: str, options: dict[str, int], timeout_seconds: float, reference: Rows | None = None
) -> Record:
    """Run a contender once and look at what it wrote."""
    with tempfile.TemporaryDirectory(prefix="locum-bench-out-") as folder:
        out = Path(folder) / "out"
        done = run(contender, case.work(out, options), timeout_seconds)
        rows = rows_of(out, case.archive.starts_us)
    return record_of(case, contender, done, rows, reference) | {"_rows": rows}


def record_of(case: Case, contender: str, done: Run, rows: Rows, reference: Rows | None) -> Record:
    top1, logits = difference(rows, reference) if reference is not None else (None, None)
    return {
        "contender": contender,
        "died": done.died,
        "words": last_words(done) if done.died else "",
        "wall_s": done.seconds,
        "steady_rate": steady_rate(done.marks),
        "work_rate": work_rate(done.marks),
        "good_rate": len(rows.good) / done.seconds,
        "peak_mib": done.peak_mib,
        "good_rows": len(rows.good),
        "expected_rows": case.archive.clips,
        "extra_rows": rows.doubled + rows.unknown,
        "rows_of_bad_videos": rows.of_bad_videos,
        "computed": sum(mark.clips for mark in done.marks),
        "top1_agreement": top1,
        "logits_difference": logits,
    }


def run_rounds(
    case: Case, contenders: list[str], rounds: int, options: dict[str, dict[str, int]], timeout_seconds: float
) -> list[list[Record]]:
    """Records of each round, in the order of ``contenders``."""
    results: list[list[Record]] = []
    reference: Rows | None = None
    for number in range(rounds):
        turn = number % len(contenders)
        records: dict[str, Record] = {}
        for contender in contenders[turn:] + contenders[:turn]:
            record = run_once(case, contender, options.get(contender, {}), timeout_seconds, reference)
            rows = record.pop("_rows")
            if contender == "ideal" and reference is None:
                reference = rows
            records[contender] = record
            rate = record["work_rate"]
            print(
                f"  round {number + 1} {contender:20s} {record['wall_s']:6.1f} s"
                + (f" {rate:8.2f} clips/s" if rate else "")
                + (f"  DIED: {record['died']}: {record['words']}" if record["died"] else ""),
                flush=True,
            )
        results.append([records[contender] for contender in contenders])
    return results


def print_table(case: Case, contenders: list[str], rounds: list[list[Record]]) -> None:
    a = case.archive
    print(f"\n{case.name}: {a.videos} videos, {a.poisoned} of them bad, {a.clips} clips in the others")
    print(
        f"{'':20s} {'work/s':>8s} {'of ideal':>11s} {'steady/s':>8s} {'of ideal':>11s} "
        f"{'wall s':>7s} {'good/s':>7s} {'peak MiB':>8s} "
        f"{'rows':>11s} {'extra':>5s} {'top1':>5s} {'logits':>7s}"
    )
    columns = {name: [records[i] for records in rounds] for i, name in enumerate(contenders)}
    for name, records in columns.items():
        rates = " ".join(
            _rate_cells(records, columns.get("ideal", []), kind) for kind in ("work_rate", "steady_rate")
        )
        worst = min(records, key=lambda r: r["good_rows"])
        print(
            f"{name:20s} {rates} "
            f"{_say(median([r['wall_s'] for r in records]), '.1f'):>7s} "
            f"{_say(median([r['good_rate'] for r in records]), '.2f'):>7s} "
            f"{max(r['peak_mib'] for r in records):8.0f} "
            f"{worst['good_rows']:>5d}/{worst['expected_rows']:<5d} {max(r['extra_rows'] for r in records):5d} "
            f"{_say(median([r['top1_agreement'] for r in records]), '.3f'):>5s} "
            f"{_say(median([r['logits_difference'] for r in records]), '.1e'):>7s}"
        )
    for name, records in columns.items():
        deaths = [r for r in records if r["died"]]
        if deaths:
            print(
                f"  {name} died in {len(deaths)} of {len(records)}: {deaths[0]['died']}: {deaths[0]['words']}"
            )
    print(flush=True)


def _rate_cells(records: list[Record], ideal: list[Record], kind: str) -> str:
    """A rate, its paired ratio to ideal's, and that ratio's lower bound."""
    ratios = paired_ratios([r[kind] for r in records], [r[kind] for r in ideal]) if ideal else []
    of_ideal = f"{_say(median(ratios), '.2f')} >{_say(lower_bound(ratios), '.2f')}" if ratios else "-"
    return f"{_say(median([r[kind] for r in records]), '.2f'):>8s} {of_ideal:>11s}"


def _say(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def parse_options(texts: list[str]) -> dict[str, dict[str, int]]:
    """``ray_data_expert.teachers=1`` and the like."""
    options: dict[str, dict[str, int]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        contender, _, key = name.partition(".")
        options.setdefault(contender, {})[key] = int(value)
    return options


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--teacher", default="light,heavy")
    parser.add_argument("--size", default="320x240,1280x720")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--seconds", type=float, default=15.0, help="work of each job, in seconds of ideal")
    parser.add_argument("--videos", type=int, help="videos of each job, instead of --seconds")
    parser.add_argument("--poison", type=float, default=0.0, help="share of bad files")
    parser.add_argument(
        "--timeout", type=float, help="seconds of one job; 60 and 12 times --seconds if not given"
    )
    parser.add_argument("--option", action="append", default=[], help="CONTENDER.NAME=NUMBER, its tuning")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "locum-bench-teach")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that contenders are ended too
    wanted = args.contenders.split(",")
    if unknown := set(wanted) - set(CONTENDERS):
        sys.exit(f"there is no contender {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    for contender in wanted:
        if reason := missing(contender):
            print(f"{contender} is left out: {reason}")
    contenders = [contender for contender in wanted if not missing(contender)]
    timeout = args.timeout or 60 + 12 * args.seconds
    results: list[Record] = []
    for teacher in args.teacher.split(","):
        for size_text in args.size.split(","):
            width, height = map(int, size_text.split("x"))
            if args.videos:
                case = make_case(args.data, teacher, (width, height), args.videos, args.poison)
            else:
                case = sized_case(args.data, teacher, (width, height), args.seconds, args.poison)
            rounds = run_rounds(case, contenders, args.rounds, parse_options(args.option), timeout)
            print_table(case, contenders, rounds)
            results.append(
                {"case": case.name, "poison": args.poison, "contenders": contenders, "rounds": rounds}
            )
            shutil.rmtree(case.archive.table.parent)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
