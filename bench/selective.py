"""Selective labelling against the dense teacher, end to end: accuracy and cost of every policy and baseline.

    python -m bench.selective prepare ARCHIVE OUT [--seeds 3]  # heavy teacher over the archive, kept frames, students
    python -m bench.selective run ARCHIVE OUT [--blocks 5]     # label the test split by every policy, block by block
    python -m bench.selective table OUT                        # what came of it, beside what was simulated

The archive is that of `bench.motion_archive`, the teacher `bench.motion_teacher`. Each policy is calibrated on other
videos to cost no more than a share of the dense teacher (``--max-cost``), and labels the test split with `jobs.label`
on one runner; in each block of groups all policies take their turn (``--upto`` ends after so many blocks, ``--only``
takes some policies, ``--seed`` another student). Costs are seconds of decoding, student and teacher, of the device each
ran on. The table says of every policy what it comes to on all test videos, which a run repeats label by label, and of
those that ran what they cost. Run again to continue."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.distill import say, told
from bench.evidence.outcomes import Over, came
from bench.motion_teacher import motion_target_spec
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.distill import DistilOptions, distil
from jobs.label import LabelOptions, LabelReport, label
from jobs.labelling.inputs import read_policy
from jobs.runners import runner_for
from jobs.selecting.applied import applied
from jobs.selecting.costs import covered_us
from jobs.selecting.judged import open_student, targets_of
from jobs.simulate import SimulateOptions, simulate
from jobs.teach import TeachOptions, teach
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
    passage: float | None = None
    idle: float = 0.0


def entries(max_cost: float) -> list[Entry]:
    """Dense first: all others are measured against it."""
    every: tuple[ScoreName, ...] = get_args(ScoreName)
    all_of_it = Wish(max_cost=1.0)
    scored: list[Entry] = [
        Entry(f"{kind} {score}", (kind,), (score,))
        for kind, scores in (
            ("clip-threshold", ("msp", "entropy", "margin", "confidence", "gain", "gain-in-context")),
            ("video-threshold", ("msp", "entropy", "margin", "confidence", "gain", "video-in-context")),
            ("video-part", ("entropy", "margin", "gain", "video-in-context")),
            ("top-k", ("teacher", "gain-in-context", "entropy")),
            ("budget", ("entropy", "gain", "gain-in-context")),
        )
        for score in scores
    ]
    return [
        Entry("dense", ("dense",), wish=all_of_it),
        Entry("student-alone", ("student-alone",), wish=all_of_it),
        # Of these no member costs so little where most videos are short: the cheapest ones.
        *(Entry(f"{kind} of 1", (kind,), wish=Wish(budget=0.35)) for kind in ("uniform-k", "random-k")),
        *scored,
        Entry("coarse-to-fine", ("coarse-to-fine",)),
        Entry("calibrated", ("clip-threshold", "video-threshold", "video-part"), every),
        Entry(
            "calibrated to a fifth",
            ("clip-threshold", "video-threshold", "video-part"),
            every,
            Wish(max_cost=0.2),
        ),
        Entry("guaranteed 0.05", ("video-threshold",), ("entropy",), Wish(max_disagreement=0.05)),
    ]


# ---------------------------------------------------------------- making


def prepare(archive: Path, out: Path, threads: int | None, seeds: int) -> None:
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(batch_size=8, keep=KEEP)
        report = teach(str(archive / "manifest.csv"), str(out), motion_target_spec(), options, runner=runner)
    print(json.dumps(report.to_json(), indent=1))
    (frames,) = out.glob("frames-*")
    for seed in range(1, seeds + 1):
        made = distil(
            [report.store.url],
            str(out),
            STUDENT.model_copy(update={"seed": seed}),
            DistilOptions(frames=str(frames), num_threads=threads),
            on_progress=told,
        )
        print(json.dumps(made.about["evaluation"]["test"]["metrics"], indent=1))


def student_of(out: Path, seed: int = STUDENT.seed) -> str:
    """The student of a seed that learnt from the targets that are there now: the one made last."""
    found = sorted(out.glob("student-*/student.json"), key=lambda p: p.stat().st_mtime)
    mine = [p for p in found if json.loads(p.read_text())["train"]["seed"] == seed]
    return str(mine[-1].parent)


def runs_of(out: Path, seed: int) -> Path:
    """Where what the student of a seed came to is kept."""
    return out / ("runs" if seed == STUDENT.seed else f"runs-{seed}")


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


def policies(student: str, max_cost: float, costs: CostFlags, only: Sequence[str] = ()) -> dict[str, str]:
    """Calibrate what is not there yet; the name of each entry's policy in the student's folder."""
    names = {}
    for entry in entries(max_cost):
        if only and entry.name not in only:
            continue
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


def blocks_of(archive: Path, runs: Path, number: int) -> list[Path]:
    """Manifests of the test split, its groups dealt to so many blocks."""
    return [manifest_of(archive, runs / f"block-{b}", "test", b, number) for b in range(number)]


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


def run(
    archive: Path, out: Path, blocks: int, max_cost: float, only: list[str], upto: int | None, seed: int
) -> None:
    student = student_of(out, seed)
    names = policies(student, max_cost, measured_costs(archive, out, student_of(out)), only)
    chosen = list(names)
    for number, manifest in enumerate(blocks_of(archive, runs_of(out, seed), blocks)[:upto]):
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
    """Seconds by what they were spent on, over the passes of a run: of all shards, whichever run they are of."""
    passes = [report] if report.scores is None else [report.scores, report]
    stages: dict[str, float] = {}
    for footer in (footer for each in passes for footer in each.store.footers()):
        for name, seconds in footer.seconds.items():
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
    """One policy over the blocks that it ran on. B blocks."""

    seconds_B: Floats
    wall_B: Floats
    parts: dict[str, float]
    right: dict[str, float]
    """Of each video, whether its label was given."""

    @property
    def accuracy(self) -> float:
        return float(np.mean(list(self.right.values())))


def measured(
    runs: Path, policy: str, blocks: Sequence[str] | None = None
) -> tuple[list[str], Measured] | None:
    """What ran of a policy, on all blocks or some."""
    records = [
        r for r in sorted(runs.glob(f"block-*/{policy}.json")) if blocks is None or r.parent.name in blocks
    ]
    if not records:
        return None
    bodies = [json.loads(r.read_text()) for r in records]
    table = pa.concat_tables([pq.read_table(r.with_suffix(".parquet")) for r in records])
    right_V = pc.equal(table["label"], table["top1_name"]).fill_null(False).to_numpy().astype(np.float64)
    return [r.parent.name for r in records], Measured(
        np.array([sum(b["seconds"].values()) for b in bodies]),
        np.array([b["wall_seconds"] for b in bodies]),
        {k: sum(b["seconds"][k] for b in bodies) for k in bodies[0]["seconds"]},
        dict(zip(table["video_id"].to_pylist(), right_V.tolist(), strict=True)),
    )


def simulated(students: Sequence[str], policy: str) -> Over | None:
    """What a policy comes to on the same test videos by the students that have it; no model is run."""
    found = []
    for url in students:
        if (Path(url) / "policies" / f"{policy}.json").exists():
            student = open_student(url)
            document = read_policy(student, policy)
            on = applied(student, document, targets_of(student), num_draws=2)
            found.append(came(on.sim, on.decision, document.aggregation))
    return Over(tuple(found), DRAWS) if found else None


def table(out: Path, max_cost: float, seeds: int) -> None:
    students = [student_of(out, seed) for seed in range(1, seeds + 1)]
    names = {e.name: f"{e.name.replace(' ', '-')}-{max_cost:g}" for e in entries(max_cost)}
    print(
        f"policies may cost {max_cost:.0%} of dense; accuracy of all test videos, by so many students; cost of those "
        "that ran, over so many blocks, beside the dense teacher on the same"
    )
    print(
        f"{'policy':28s} {'accuracy':>8s} {'difference from dense':>28s} {'agrees':>7s} {'deferred':>8s} {'of':>3s} "
        f"{'predicted':>9s} {'cost':>6s} {'blocks':>18s} {'wall':>6s} {'decode, student, teacher s':>26s} {'right':>7s}"
    )
    for name, policy in names.items():
        o = simulated(students, policy)
        if o is None:
            continue
        gain = o.gain
        line = (
            f"{name:28s} {o.accuracy.value:8.4f} {gain.value:+9.4f} [{gain.low:+.4f}, {gain.high:+.4f}] "
            f"{o.agreement:7.3f} {o.share:8.1%} {o.students:3d} {o.ratio:9.1%}"
        )
        judged = o.each_S[0]
        print(line + _cost(out, policy, names["dense"]))
    print(f"{len(judged.right_V)} videos in {len(np.unique(judged.group_V))} groups")
    for student in students:
        areas = simulate([student], SimulateOptions(scores=SCORES)).areas
        print(
            "clips deferred by a score, over all shares: part of an oracle's gain, and over max-probability"
        )
        for score, (_, part, over) in areas.items():
            print(
                f"  {score:22s} {part.value:7.1%} [{part.low:.1%}, {part.high:.1%}]   "
                f"{over.value:+.4f} [{over.low:+.4f}, {over.high:+.4f}]"
            )


def _cost(out: Path, policy: str, dense: str) -> str:
    """What a policy cost where it ran, of the first student."""
    ran = measured(out / "runs", policy)
    if ran is None:
        return ""
    blocks, m = ran
    beside = measured(out / "runs", dense, blocks)
    if beside is None or beside[0] != blocks:
        return ""
    d, p = beside[1], m.parts
    ratio_B = m.seconds_B / d.seconds_B
    return (
        f" {m.seconds_B.sum() / d.seconds_B.sum():6.1%} {len(blocks)}: [{ratio_B.min():.1%}, {ratio_B.max():.1%}] "
        f"{m.wall_B.sum() / d.wall_B.sum():6.1%} {p['decode']:8.1f} {p['student']:8.1f} {p['teacher']:8.1f} "
        f"{m.accuracy:7.4f}"
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
        if name != "run":
            command.add_argument("--seeds", type=int, default=1)
    commands.choices["prepare"].add_argument("--threads", type=int)
    commands.choices["run"].add_argument("--blocks", type=int, default=5)
    commands.choices["run"].add_argument("--only", nargs="+", default=[])
    commands.choices["run"].add_argument("--upto", type=int)
    commands.choices["run"].add_argument("--seed", type=int, default=STUDENT.seed)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.archive, args.out, args.threads, args.seeds)
    elif args.command == "run":
        run(args.archive.resolve(), args.out, args.blocks, args.max_cost, args.only, args.upto, args.seed)
    else:
        table(args.out, args.max_cost, args.seeds)


if __name__ == "__main__":
    sys.exit(main())
