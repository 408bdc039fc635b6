"""Students of two small real sets, cross-fitted over all groups: labels alone against the cache, with intervals.

    python -m bench.small_sets fight MANIFEST WEIGHTS.h5 OUT      # teacher: a foreign fight detector (RGB and flow)
    python -m bench.small_sets interaction MANIFEST OUT [--folds 5]  # teacher: nested probes over an image network
    python -m bench.small_sets interaction MANIFEST OUT --hold-out set2  # one teacher, which saw no group set2...
    python -m bench.small_sets accuracy OUT [--epochs 30]         # 5 folds, 3 seeds, both arms
    python -m bench.small_sets selective OUT [--seeds 1 2 3]      # clips divided between these students and the teacher

No clip is judged by a student, nor its target given by a probe, that saw its group; probes that give the targets of
what a student learns from saw the labels of its val and calibration groups. These sets are small: what their intervals
do not say is not said. Run again to continue."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np

from bench.distill import ARMS, say, told
from bench.distill_arms.compare import held, paired, summary
from bench.distill_arms.probe import held_out_logits, nested_logits, write_targets
from bench.selective import Applied, Entry, applied, over_students
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.distill import DistilOptions, distil
from jobs.frames import keep_frames
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from pipeline.draws import folds
from pipeline.known import group_hashes
from pipeline.models.memory import keep_freed_memory
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.clip import US, ClipSpec
from schemas.cluster import RayOptions
from schemas.errors import SettingsError
from schemas.frames import KeepSpec
from schemas.model import InputSpec, ModelRef
from schemas.policy import CostFlags, ScoreName, Wish
from schemas.student import TrainSpec
from schemas.targets import TargetSpec, ViewSpec

KEEP = KeepSpec(num_frames=8, width=64, height=64)
FOLDS = 5
ROOT = Path(__file__).resolve().parent.parent
SQUASHED = ViewSpec(width=224, height=224, fit="squash")
"""A square of the whole picture: in ut-interaction the shape of a video would give its class away."""


def fight_teacher(weights: Path) -> TargetSpec:
    teacher = ModelRef(
        factory=f"{ROOT / 'examples' / 'flow_gated.py'}:build",
        kwargs={"path": str(weights)},
        classes=("fight", "no_fight"),
        input=InputSpec(scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )
    clip = ClipSpec(num_frames=64, seconds=2.0)
    return TargetSpec(teacher=teacher, clip=clip, view=SQUASHED, precision="bf16")  # twice as fast as fp32


def features_teacher() -> TargetSpec:
    mean = (0.9921875,) * 3
    teacher = ModelRef(
        factory="bench.distill_arms.probe:build", input=InputSpec(scale=128.0, mean=mean, std=(1.0, 1.0, 1.0))
    )
    return TargetSpec(teacher=teacher, clip=ClipSpec(num_frames=8, seconds=2.0), view=SQUASHED)


def fight(manifest: Path, weights: Path, out: Path) -> None:
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(batch_size=1, keep=KEEP)
        report = teach(str(manifest), str(out), fight_teacher(weights), options, runner=runner)
        print(json.dumps(report.to_json(), indent=1))


def interaction(manifest: Path, out: Path, num_folds: int = FOLDS, hold_out: str | None = None) -> None:
    """Targets of every fold under ``fold-K``; with ``hold_out``, one store whose test split are the groups of that
    beginning, and whose teacher saw none of them."""
    if hold_out is not None:
        manifest = _split_manifest(manifest, out, hold_out)
    with runner_for(RayOptions(), local=False) as runner:
        options = TeachOptions(name="features", batch_size=4)
        report = teach(str(manifest), str(out / "features"), features_teacher(), options, runner=runner)
        keep_frames(report.store.url, str(out), KEEP, runner=runner)
    print(json.dumps(report.to_json()["this_run"]))
    rows = read(report.store, ["video_id", "start_us", "logits", "label", "split", "group", "file_id"])
    x_NF = np.stack(rows["logits"].to_numpy()).astype(np.float64)
    classes, y_N = np.unique(rows["label"].to_pylist(), return_inverse=True)
    keys = list(zip(rows["video_id"].to_pylist(), rows["start_us"].to_pylist(), strict=True))
    group_N = group_hashes(rows)
    if hold_out is not None:
        test_N = np.array(rows["split"].to_pylist()) == "test"
        logits_NK = held_out_logits(x_NF, y_N, group_N, test_N, num_folds, len(classes))
        made = {f"without {hold_out}": (out, {"held_out": hold_out}, logits_NK, test_N)}
    else:
        outer_N = folds(group_N, num_folds)
        made = {
            f"fold {fold}": (
                out / f"fold-{fold}",
                {"fold": fold, "folds": num_folds},
                logits,
                outer_N == fold,
            )
            for fold, logits in nested_logits(x_NF, y_N, group_N, outer_N, len(classes)).items()
        }
    features = features_teacher()
    for name, (folder, how, logits_NK, test_N) in made.items():
        probe = ModelRef(
            factory="bench.distill_arms.probe:nested_logits",
            kwargs={**how, "features": report.store.document.fingerprint},
            num_classes=len(classes),
            classes=tuple(str(c) for c in classes),
            code="logits written by bench.small_sets",
            weights_sha256=hashlib.sha256(logits_NK.tobytes()).hexdigest(),
        )
        spec = features.model_copy(update={"teacher": probe})
        store = write_targets(report.store, str(folder), spec, dict(zip(keys, logits_NK, strict=True)))
        right_N = logits_NK.argmax(1) == y_N
        say(
            f"{name}: {right_N.mean():.3f} of clips right, {right_N[test_N].mean():.3f} of its own -> {store.url}"
        )


def _split_manifest(manifest: Path, out: Path, hold_out: str) -> Path:
    """The manifest with the groups of a beginning as test, and all others as train."""
    with manifest.open() as file:
        rows = list(csv.DictReader(file))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            split = "test" if row["group"].startswith(hold_out) else "train"
            writer.writerow({**row, "uri": str(manifest.parent.resolve() / row["uri"]), "split": split})
    return path


def targets_of(out: Path, fold: int) -> str:
    """The targets of an outer fold: its own, or the only ones."""
    own = list((out / f"fold-{fold}").glob("targets-*"))
    (found,) = own or list(out.glob("targets-*"))
    return str(found)


def accuracy(out: Path, spec: TrainSpec, seeds: tuple[int, ...]) -> None:
    (frames,) = out.glob("frames-*")
    found = {}
    for name, changes in ARMS.items():
        folders = []
        for seed in seeds:
            of_seed = []
            for fold in range(FOLDS):
                say(f"{name}, seed {seed}, fold {fold}")
                options = DistilOptions(name=name, frames=str(frames))
                now = spec.model_copy(update={**changes, "seed": seed, "folds": FOLDS, "fold": fold})
                students = str(out / "students")
                of_seed.append(distil([targets_of(out, fold)], students, now, options, on_progress=told).url)
            folders.append(of_seed)
        found[name] = held(folders)
    for name, arm_held in found.items():
        print("\n".join(summary(name, arm_held)))
    print("\n".join(paired("cache against labels alone", found["cache"], found["labels-alone"])))


COSTS = (0.25, 0.5, 0.75)


def students_of(out: Path, seed: int) -> list[str]:
    """The students of all folds that learnt from the cache with a seed."""
    found = {}
    for path in (out / "students").glob("cache-*/student.json"):
        train = json.loads(path.read_text())["train"]
        if train["seed"] == seed and train["folds"] == FOLDS:
            found[train["fold"]] = str(path.parent)
    if len(found) != FOLDS:
        raise SystemExit(
            f"{out}: {len(found)} of {FOLDS} folds have a student of seed {seed}: `accuracy` makes them"
        )
    return [found[fold] for fold in range(FOLDS)]


def selective(out: Path, seeds: tuple[int, ...]) -> None:
    """Policies that each fold's student is calibrated for on its own held-out videos, on the videos of the fold."""
    students = [students_of(out, seed) for seed in seeds]
    alone = [Entry("dense", ("dense",)), Entry("student-alone", ("student-alone",))]
    kinds = ("clip-threshold", "video-threshold", "video-part", "top-k", "uniform-k", "random-k", "budget")
    tried = [*(Entry(k, (k,), ("gain",)) for k in kinds), Entry("calibrated", kinds[:3], get_args(ScoreName))]
    print(
        f"{'policy':16s} {'may cost':>8s} {'accuracy':>8s} {'difference from dense':>28s} {'deferred':>8s} {'cost':>6s}"
    )
    for entry, cost in [*((e, 1.0) for e in alone), *product(tried, COSTS)]:
        name = f"{entry.name}-{cost:g}"
        found = [_over_folds(folds, entry, cost, name, costs_in(out)) for folds in students]
        if any(f is None for f in found):
            print(f"{entry.name:16s} {cost:8.0%} nothing of it costs so little in some fold")
            continue
        of_seeds = [f for f in found if f is not None]
        o, ratio = over_students(of_seeds)
        value, low, high = o.gain
        print(
            f"{entry.name:16s} {cost:8.0%} {o.right_V.mean():8.4f} {value:+9.4f} [{low:+.4f}, {high:+.4f}] "
            f"{o.share:8.1%} {ratio:6.1%}",
            flush=True,
        )
    videos, groups = len(o.right_V), len(np.unique(o.group_V))
    print(f"{videos} videos in {groups} groups, {of_seeds[0].clips / videos:.1f} clips a video")


def costs_in(out: Path) -> CostFlags:
    """What the features took, where targets were made of them and say nothing of it; else what the targets say."""
    stores = list((out / "features").glob("features-*"))
    if not stores:
        return CostFlags()
    rows = read(ShardStore.open(str(stores[0])), ["start_us", "end_us", "decode_ms", "teacher_ms"])
    seconds = (rows["end_us"].to_numpy() - rows["start_us"].to_numpy()).sum() / US
    decode_s, teacher_s = (
        rows[n].to_numpy().astype(np.float64).sum() / 1e3 for n in ("decode_ms", "teacher_ms")
    )
    return CostFlags(open=0.0, decode=decode_s / seconds, teacher=teacher_s / len(rows))


def _over_folds(folds: list[str], entry: Entry, cost: float, name: str, costs: CostFlags) -> Applied | None:
    """One policy on all videos, each by the student that did not see it; None where a fold has no member of it."""
    parts = []
    for url in folds:
        try:
            calibrate(
                url, Wish(max_cost=cost), CalibrateOptions(entry.kinds, entry.scores, name=name, costs=costs)
            )
        except SettingsError:
            return None
        parts.append(applied(url, name))
    clips = np.array([p.clips for p in parts], np.float64)
    return Applied(
        *(
            np.concatenate([getattr(p, n) for p in parts])
            for n in ("right_V", "dense_V", "agrees_V", "group_V")
        ),
        share=float(np.average([p.share for p in parts], weights=clips)),
        ratio=float(np.average([p.ratio for p in parts], weights=clips)),
        clips=int(clips.sum()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fight", "interaction"):
        command = commands.add_parser(name)
        command.add_argument("manifest", type=Path)
        if name == "fight":
            command.add_argument("weights", type=Path)
        command.add_argument("out", type=Path)
        if name == "interaction":
            command.add_argument("--folds", type=int, default=FOLDS)
            command.add_argument(
                "--hold-out", metavar="BEGINNING", help="of the groups that are the test split"
            )
    judge = commands.add_parser("accuracy")
    judge.add_argument("out", type=Path)
    judge.add_argument("--epochs", type=int, default=30)
    judge.add_argument("--student", default="frames")
    judge.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    divide = commands.add_parser("selective")
    divide.add_argument("out", type=Path)
    divide.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    if args.command == "accuracy":
        keep_freed_memory()
    if args.command == "fight":
        fight(args.manifest, args.weights, args.out)
    elif args.command == "interaction":
        interaction(args.manifest, args.out, args.folds, args.hold_out)
    elif args.command == "selective":
        selective(args.out, tuple(args.seeds))
    else:
        spec = TrainSpec(student=args.student, epochs=args.epochs, heads_share=1.0)
        accuracy(args.out, spec, tuple(args.seeds))


if __name__ == "__main__":
    sys.exit(main())
