"""Selective labelling against the dense teacher, end to end: accuracy and cost of every policy and baseline.

    python -m bench.selective prepare ARCHIVE OUT             # heavy teacher over the archive, kept frames, a student
    python -m bench.selective run ARCHIVE OUT [--blocks 5]    # label the test split by every policy, block by block
    python -m bench.selective table OUT                       # what came of it, beside what was simulated

The archive is that of `bench.motion_archive`, the teacher `bench.motion_teacher`. Each policy is calibrated on other
videos to cost no more than a share of the dense teacher (``--max-cost``), and labels the test split with `jobs.label`
on one runner; in each block of groups all policies take their turn. Costs are seconds of decoding, student and teacher,
of the device each ran on. Run again to continue."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.distill import say, told
from bench.motion_teacher import motion_target_spec
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.costs import covered_us
from jobs.distill import DistilOptions, distil
from jobs.label import LabelOptions, LabelReport, label
from jobs.runners import runner_for
from jobs.simulate import SimulateOptions, simulate
from jobs.teach import TeachOptions, teach
from pipeline import metrics
from pipeline.demo.motion import MIRROR_X
from pipeline.store.read import scan
from schemas.clip import US
from schemas.cluster import RayOptions
from schemas.errors import SettingsError
from schemas.frames import KeepSpec
from schemas.policy import SCORES, CostFlags, PolicyKind, ScoreName, Wish
from schemas.student import TrainSpec

KEEP = KeepSpec(num_frames=8, width=48, height=48)
STUDENT = TrainSpec(student="frames", epochs=8, mirror=MIRROR_X, seed=1)
MAX_COST = 0.25
DRAWS = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A policy of the table: what may be chosen among, and within which cost."""

    name: str
    kinds: tuple[PolicyKind, ...]
    scores: tuple[ScoreName, ...] = ("gain",)
    wish: Wish | None = None


def entries(max_cost: float) -> list[Entry]:
    """Dense first: all others are measured against it."""
    every: tuple[ScoreName, ...] = get_args(ScoreName)
    all_of_it = Wish(max_cost=1.0)
    scored: list[Entry] = [
        Entry(f"{kind} {score}", (kind,), (score,))
        for kind, scores in (
            ("clip-threshold", ("msp", "entropy", "margin", "confidence", "gain")),
            ("video-threshold", ("msp", "entropy", "margin", "confidence", "gain")),
            ("video-part", ("entropy", "margin", "gain")),
            ("top-k", ("teacher", "gain", "entropy")),
            ("budget", ("entropy", "gain")),
        )
        for score in scores
    ]
    return [
        Entry("dense", ("dense",), wish=all_of_it),
        Entry("student-alone", ("student-alone",), wish=all_of_it),
        Entry("uniform-k", ("uniform-k",)),
        Entry("random-k", ("random-k",)),
        *scored,
        Entry("coarse-to-fine", ("coarse-to-fine",)),
        Entry("calibrated", ("clip-threshold", "video-threshold", "video-part"), every),
        Entry("guaranteed 0.05", ("video-threshold",), ("entropy",), Wish(max_disagreement=0.05)),
    ]


# ---------------------------------------------------------------- making


def prepare(archive: Path, out: Path, threads: int | None) -> None:
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(batch_size=8, keep=KEEP)
        report = teach(str(archive / "manifest.csv"), str(out), motion_target_spec(), options, runner=runner)
    print(json.dumps(report.to_json(), indent=1))
    (frames,) = out.glob("frames-*")
    made = distil(
        [report.store.url],
        str(out),
        STUDENT,
        DistilOptions(frames=str(frames), num_threads=threads),
        on_progress=told,
    )
    print(json.dumps(made.about["evaluation"]["test"]["metrics"], indent=1))


def student_of(out: Path) -> str:
    """The student that learnt from the targets that are there now: the one made last."""
    found = sorted(out.glob("student-*/student.json"), key=lambda p: p.stat().st_mtime)
    return str(found[-1].parent)


def measured_costs(archive: Path, out: Path, student: str) -> CostFlags:
    """What decoding, student and teacher take on this machine, of some calibration videos that are labelled by the
    dense teacher and by the student alone. Measured once."""
    path = out / "runs" / "costs.json"
    if not path.exists():
        manifest = manifest_of(archive, out / "runs" / "costs", "calibration", 0, 10)
        spent: dict[str, float] = {}
        for kind in ("dense", "student-alone"):
            calibrate(student, Wish(max_cost=1.0), CalibrateOptions((kind,), ("gain",), name=f"costs-{kind}"))  # type: ignore[arg-type]
            options = LabelOptions(name=kind, batch_size=8, num_threads=1)
            report = label(str(manifest), str(manifest.parent), student, f"costs-{kind}", options)
            body = record_of(kind, report)
            seconds = sum(read_seconds(report))
            spent["teacher" if kind == "dense" else "student"] = (
                body["seconds"]["teacher" if kind == "dense" else "student"] / body["clips"]
            )
            spent["decode"] = body["seconds"]["decode"] / seconds
        path.write_text(json.dumps({**spent, "open": 0.0}))
    return CostFlags(**json.loads(path.read_text()))


def read_seconds(report: LabelReport) -> list[float]:
    """Seconds of video that each shard's clips cover."""
    return [covered_us(t) / US for t in scan(report.store, ["video_id", "start_us", "end_us"])]


def policies(student: str, max_cost: float, costs: CostFlags) -> dict[str, str]:
    """Calibrate what is not there yet; the name of each entry's policy in the student's folder."""
    names = {}
    for entry in entries(max_cost):
        name = f"{entry.name.replace(' ', '-')}-{max_cost:g}"
        wish = entry.wish or Wish(max_cost=max_cost)
        if not (Path(student) / "policies" / f"{name}.json").exists():
            try:
                options = CalibrateOptions(entry.kinds, entry.scores, name=name, costs=costs)
                calibrate(student, wish, options)
            except SettingsError as e:
                say(f"{entry.name}: {e}")
                continue
        names[entry.name] = name
    return names


# ---------------------------------------------------------------- running


def blocks_of(archive: Path, out: Path, number: int) -> list[Path]:
    """Manifests of the test split, its groups dealt to so many blocks."""
    return [manifest_of(archive, out / "runs" / f"block-{b}", "test", b, number) for b in range(number)]


def manifest_of(archive: Path, folder: Path, split: str, block: int, number: int) -> Path:
    """The videos of one of so many blocks of a split's groups."""
    rows = [r for r in csv.DictReader((archive / "manifest.csv").open()) if r["split"] == split]
    mine = set(list(dict.fromkeys(r["group"] for r in rows))[block::number])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**r, "uri": str(archive / r["uri"])} for r in rows if r["group"] in mine)
    return path


def run(archive: Path, out: Path, blocks: int, max_cost: float, only: list[str]) -> None:
    student = student_of(out)
    names = policies(student, max_cost, measured_costs(archive, out, student))
    chosen = [name for name in names if not only or name in only]
    for number, manifest in enumerate(blocks_of(archive, out, blocks)):
        # Who comes first differs from block to block.
        for entry in chosen[number % len(chosen) :] + chosen[: number % len(chosen)]:
            record = manifest.parent / f"{names[entry]}.json"
            if record.exists():
                continue
            options = LabelOptions(name=names[entry], batch_size=8, num_threads=1)
            report = label(str(manifest), str(manifest.parent), student, names[entry], options)
            if not report.complete:
                raise RuntimeError(f"{entry} did not finish")
            record.write_text(json.dumps(record_of(entry, report), indent=1))
            pq.write_table(report.labels.table, record.with_suffix(".parquet"))
            say(f"block {number}, {entry}: {record.read_text()[:400]}")


def record_of(entry: str, report: LabelReport) -> dict[str, Any]:
    """Seconds by what they were spent on, over the passes of a run."""
    passes = [report] if report.scores is None else [report.scores, report]
    stages: dict[str, float] = {}
    for each in passes:
        for name, seconds in each.summary.seconds_by_stage.items():
            stages[name] = stages.get(name, 0.0) + seconds
    spent = {
        "decode": stages.get("decode", 0.0),
        "student": sum(stages.get(n, 0.0) for n in ("student view", "student", "decide")),
        "teacher": sum(stages.get(n, 0.0) for n in ("teacher", "held frames")),
    }
    found = report.labels.to_json()
    return {
        "entry": entry,
        "policy": report.policy.policy.model_dump(exclude_defaults=True),
        "seconds": spent,
        "wall_seconds": sum(each.summary.seconds for each in passes),
        "decodings": str(report.decodings),
        "clips": found["clips"],
        "deferred": found["deferred"],
        "looked": found["looked"],
        "videos": found["videos"],
        "expected": report.policy.expected.model_dump(),
    }


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Measured:
    """One policy over all blocks. V videos, B blocks."""

    name: str
    right_V: Floats
    top1_V: NDArray[np.int64]
    group_V: NDArray[np.str_]
    seconds_B: Floats
    wall_B: Floats
    parts: dict[str, float]
    share: float
    clips: int
    expected: dict[str, Any]


def measured(out: Path, policy: str, name: str) -> Measured | None:
    records = sorted((out / "runs").glob(f"block-*/{policy}.json"))
    if not records:
        return None
    bodies = [json.loads(r.read_text()) for r in records]
    table = pa.concat_tables([pq.read_table(r.with_suffix(".parquet")) for r in records]).sort_by("video_id")
    parts = {k: sum(b["seconds"][k] for b in bodies) for k in bodies[0]["seconds"]}
    return Measured(
        name,
        pc.equal(table["label"], table["top1_name"]).fill_null(False).to_numpy().astype(np.float64),
        table["top1"].fill_null(-1).to_numpy().astype(np.int64),
        np.array(table["group"].to_pylist()),
        np.array([sum(b["seconds"].values()) for b in bodies]),
        np.array([b["wall_seconds"] for b in bodies]),
        parts,
        sum(b["deferred"] for b in bodies) / sum(b["clips"] for b in bodies),
        sum(b["clips"] for b in bodies),
        bodies[0]["expected"],
    )


def table(out: Path, max_cost: float) -> None:
    student = student_of(out)
    names = {e.name: f"{e.name.replace(' ', '-')}-{max_cost:g}" for e in entries(max_cost)}
    found = [m for name, policy in names.items() if (m := measured(out, policy, name)) is not None]
    dense = found[0]
    per_video = dense.clips / len(dense.right_V)
    print(
        f"{len(dense.right_V)} videos in {len(np.unique(dense.group_V))} groups, {dense.clips} clips, "
        f"{per_video:.1f} clips a video; {len(dense.seconds_B)} blocks; policies may cost {max_cost:.0%} of dense"
    )
    print(
        f"{'policy':28s} {'accuracy':>8s} {'difference from dense':>28s} {'agrees':>7s} {'deferred':>8s} "
        f"{'cost':>6s} {'blocks':>15s} {'wall':>6s} {'seconds: decode, student, teacher':>34s} {'predicted cost':>14s}"
    )
    for m in found:
        gap_V = m.right_V - dense.right_V
        draws = metrics.bootstrap(lambda at, g=gap_V: float(g[at].mean()), m.group_V, num_draws=DRAWS)
        low, high = metrics.interval(draws)
        ratio_B = m.seconds_B / dense.seconds_B
        p = m.parts
        print(
            f"{m.name:28s} {m.right_V.mean():8.4f} {gap_V.mean():+9.4f} [{low:+.4f}, {high:+.4f}] "
            f"{(m.top1_V == dense.top1_V).mean():7.3f} {m.share:8.1%} {m.seconds_B.sum() / dense.seconds_B.sum():6.1%} "
            f"[{ratio_B.min():.1%}, {ratio_B.max():.1%}] {m.wall_B.sum() / dense.wall_B.sum():6.1%} "
            f"{p['decode']:10.1f} {p['student']:10.1f} {p['teacher']:10.1f} {m.expected['ratio']:14.1%}"
        )
    areas = simulate([student], SimulateOptions(scores=SCORES)).areas
    print("clips deferred by a score, over all shares: part of an oracle's gain, and over max-probability")
    for score, (_, part, over) in areas.items():
        print(
            f"  {score:11s} {part.value:7.1%} [{part.low:.1%}, {part.high:.1%}]   "
            f"{over.value:+.4f} [{over.low:+.4f}, {over.high:+.4f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "run", "table"):
        command = commands.add_parser(name)
        if name != "table":
            command.add_argument("archive", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--max-cost", type=float, default=MAX_COST)
    commands.choices["prepare"].add_argument("--threads", type=int)
    commands.choices["run"].add_argument("--blocks", type=int, default=5)
    commands.choices["run"].add_argument("--only", nargs="+", default=[])
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.archive, args.out, args.threads)
    elif args.command == "run":
        run(args.archive.resolve(), args.out, args.blocks, args.max_cost, args.only)
    else:
        table(args.out, args.max_cost)


if __name__ == "__main__":
    sys.exit(main())
