"""Students from the cache, from labels alone, and with the teacher in the loop: what each is worth and costs.

    python -m bench.motion_archive ARCHIVE                    # first: some thousand synthetic videos
    python -m bench.distill prepare ARCHIVE OUT               # the demo's teacher over them, and kept frames
    python -m bench.distill accuracy OUT [--epochs 8]         # labels against cache, 3 seeds, paired, by group
    python -m bench.distill accuracy OUT --on OTHER           # the same students, judged on another archive's OUT
    python -m bench.distill overlap ARCHIVE OUT [--share 0.1] # targets of overlapping clips, of what `online` trains on
    python -m bench.distill online OUT [--share 0.1]          # cache against the teacher in the loop: cost and KL
    python -m bench.distill reading OUT                       # training from the cache, and by decoding video
    python -m bench.distill residual OUT                      # pooled targets against the teacher on the very window
    python -m bench.distill fidelity OUT STUDENT              # what a student says of JPEGs and of decoded frames

``accuracy`` scores the test split of the archive once, by what `jobs.distill` writes; students that are there are
not trained again, so several may run side by side with some seeds or arms, and one with all of them at the end.
``online`` trains its arms with the same weights, order and epochs on a share of the training groups, without the final
phase (which raises the KL on purpose), and prints clips a second, the seconds of a whole run for a second student, and
the KL on all clips of other splits. The teacher in the loop is asked about the clips of the cache; and about windows
that begin anywhere, which a cache answers for only where its clips overlap (``overlap``)."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from bench.distill_arms.compare import held, paired, summary
from bench.distill_arms.elsewhere import said_elsewhere
from bench.distill_arms.fidelity import fidelity as fidelity_table
from bench.distill_arms.in_the_loop import Arm, HeldOut, Run, table, train
from bench.distill_arms.online import OnlineLoader, VideoLoader
from bench.distill_arms.reading import reading as reading_table
from bench.distill_arms.residual import residual as residual_table
from jobs.commands.training_console import epoch_line
from jobs.distill import DistilOptions, distil
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from pipeline.demo.motion import MIRROR_X
from pipeline.demo.spec import demo_target_spec
from pipeline.distill.loader import Loader
from pipeline.distill.loop import TrainProgress
from pipeline.distill.snapshot import Snapshot, take_snapshot
from pipeline.distill.splits import Role, folds, roles
from pipeline.distill.stretches import stretches
from pipeline.distill.targets import TargetReader
from pipeline.models.memory import keep_freed_memory
from pipeline.models.teacher import Teacher
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.arrays import Bools
from schemas.cluster import RayOptions
from schemas.frames import FrameSpec, KeepSpec
from schemas.student import TrainSpec
from schemas.targets import TargetSpec

KEEP = KeepSpec(num_frames=8, width=48, height=48)
SEEDS = (1, 2, 3)
OVERLAPPING = "overlapping"
"""Folder of the targets of `overlap`."""
CHOSEN = TrainSpec(student="frames", epochs=8, mirror=MIRROR_X)
"""Chosen on an archive of another seed (`bench.motion_archive.TUNING_SEED`), for both arms alike."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def told(p: TrainProgress) -> None:
    if p.last is not None and p.step % max(1, p.steps // max(1, p.epochs)) == 0:
        say("  " + epoch_line(p.last, p.epochs))


def prepare(manifest: Path, out: Path, spec: TargetSpec) -> None:
    """Teach and keep frames, on Ray. Run again to continue."""
    with runner_for(RayOptions(), local=False) as runner:
        report = teach(
            str(manifest),
            str(out),
            spec,
            TeachOptions(batch_size=16, keep=KEEP),
            runner=runner,
        )
    print(json.dumps(report.to_json(), indent=1))


def stores(out: Path) -> tuple[str, str]:
    """The target store and the frame store of `prepare`."""
    (targets,), (frames,) = out.glob("targets-*"), out.glob("frames-*")
    return str(targets), str(frames)


ARMS = {"cache": {}, "labels-alone": {"label_weight": 1.0}}


def accuracy(
    out: Path,
    spec: TrainSpec,
    seeds: tuple[int, ...],
    arms: tuple[str, ...],
    num_threads: int | None,
    on: Path | None = None,
) -> None:
    targets, frames = stores(out)
    found = {}
    for name in arms:
        arm = spec.model_copy(update=ARMS[name])
        folders = []
        for seed in seeds:
            say(f"{name}, seed {seed}")
            options = DistilOptions(name, frames, num_threads=num_threads)
            report = distil(
                [targets], str(out), arm.model_copy(update={"seed": seed}), options, on_progress=told
            )
            folders.append([report.url])
        found[name] = held(folders if on is None else elsewhere(folders, on))
    for name, arm_held in found.items():
        print("\n".join(summary(name, arm_held)))
    if set(arms) == set(ARMS):
        print("\n".join(paired("cache against labels alone", found["cache"], found["labels-alone"])))


def elsewhere(folders: list[list[str]], on: Path) -> list[list[str]]:
    """Where the predictions of these students on all clips of another archive are, once they are made."""
    targets, frames = (ShardStore.open(url) for url in stores(on))
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as work:
        snapshot = take_snapshot(Path(work) / "snapshot", frames, [targets])
        return [
            [str(said_elsewhere(Path(url), snapshot, frames, on / "judged")) for url in of_seed]
            for of_seed in folders
        ]


def online(out: Path, spec: TrainSpec, share: float, seeds: tuple[int, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder, ExitStack() as closing:
        work = Path(folder)
        targets, frames = (ShardStore.open(url) for url in stores(out))
        teacher_spec = TargetSpec(**targets.document.spec)
        snapshot, seconds = timed_snapshot(work / "snapshot", frames, targets)
        reader = TargetReader(snapshot, spec.temperature)
        train_R, held_R = shared_out(snapshot, share)
        teacher = Teacher(teacher_spec, batch_size=spec.batch_size)
        plain, asking = Loader(reader, frames), OnlineLoader(reader, frames, targets, teacher)
        closing.callback(asking.close)
        arms = [
            Arm("cache", plain, snapshot, frames, train_R, before_seconds=seconds),
            Arm("online, the same clips", asking, snapshot, frames, train_R),
            Arm("online, windows anywhere", asking, snapshot, frames, train_R, shift=True),
        ]
        if (out / OVERLAPPING).exists():
            t, f = (ShardStore.open(url) for url in stores(out / OVERLAPPING))
            more, seconds = timed_snapshot(work / "overlapping", f, t)
            loader = Loader(TargetReader(more, spec.temperature), f)
            stretch_R = stretches(more.rows_R, TargetSpec(**t.document.spec).clip)
            arms.insert(
                1, Arm("cache, overlapping", loader, more, f, more.usable_R, False, stretch_R, seconds)
            )
        print(f"{train_R.sum()} clips to train on, {spec.epochs} epochs; {held_R.sum()} held out", flush=True)
        judged_by = HeldOut(plain, snapshot, held_R)
        runs: list[list[Run]] = [[] for _ in arms]
        for seed in seeds:
            for arm, of_arm in zip(arms, runs, strict=True):
                say(f"{arm.name}, seed {seed}")
                now = spec.model_copy(update={"seed": seed})
                of_arm.append(train(arm, judged_by, now, work / f"{arm.name}-{seed}", told))
            lines = table(arms, runs, judged_by.group_N)
            print("\n".join([f"{len(runs[0])} seeds:", *lines]), flush=True)


def overlap(archive: Path, out: Path, share: float) -> None:
    """Teach the videos that `online` trains on once more, with clips that start a quarter of their length apart."""
    targets, frames = (ShardStore.open(url) for url in stores(out))
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder:
        snapshot, _ = timed_snapshot(Path(folder) / "snapshot", frames, targets)
        train_R, _ = shared_out(snapshot, share)
        wanted = set(snapshot.video_ids(np.flatnonzero(train_R)))
    uris = {
        row["uri"]
        for table_ in scan(targets, ["video_id", "uri"])
        for row in table_.to_pylist()
        if row["video_id"] in wanted
    }
    rows = [r for r in csv.DictReader((archive / "manifest.csv").open()) if str(archive / r["uri"]) in uris]
    place = out / OVERLAPPING
    place.mkdir(exist_ok=True)
    with (place / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**r, "uri": str(archive / r["uri"])} for r in rows)
    spec = demo_target_spec()
    clip = spec.clip.model_copy(update={"stride_seconds": spec.clip.seconds / 4})
    prepare(place / "manifest.csv", place, spec.model_copy(update={"clip": clip}))


def timed_snapshot(folder: Path, frames: ShardStore, targets: ShardStore) -> tuple[Snapshot, float]:
    started = time.perf_counter()
    return take_snapshot(folder, frames, [targets]), time.perf_counter() - started


def shared_out(snapshot: Snapshot, share: float) -> tuple[Bools, Bools]:
    """Rows of a share of the training groups; and those that nobody trains on."""
    role_R = roles(snapshot.splits, snapshot.rows_R["split"], snapshot.rows_R["group"], snapshot.usable_R)
    parts_R = folds(snapshot.rows_R["group"], max(1, round(1 / share)))
    return (role_R == Role.TRAIN) & (parts_R == 0), snapshot.usable_R & (role_R != Role.TRAIN)


@contextmanager
def asked_online(out: Path) -> Iterator[tuple[Snapshot, OnlineLoader, TargetSpec]]:
    """The teacher of `prepare`, to be asked about windows of its videos."""
    targets, frames = (ShardStore.open(url) for url in stores(out))
    spec = TargetSpec(**targets.document.spec)
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder:
        snapshot = take_snapshot(Path(folder) / "snapshot", frames, [targets])
        yield (
            snapshot,
            OnlineLoader(TargetReader(snapshot), frames, targets, Teacher(spec, batch_size=16)),
            spec,
        )


def reading(out: Path, spec: TrainSpec, clips: int) -> None:
    targets, frames = (ShardStore.open(url) for url in stores(out))
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder:
        snapshot = take_snapshot(Path(folder) / "snapshot", frames, [targets])
        reader = TargetReader(snapshot)
        loaders = {"cache": Loader(reader, frames), "decoded video": VideoLoader(reader, frames, targets)}
        kept = FrameSpec(**frames.document.spec)
        print("\n".join(reading_table(snapshot, loaders, kept, spec, clips, Path(folder))))


def residual(out: Path, num_windows: int) -> None:
    with asked_online(out) as (snapshot, online, spec):
        print("\n".join(residual_table(snapshot, online, spec.clip.length_us, num_windows)))


def fidelity(out: Path, student: Path, num_clips: int) -> None:
    with asked_online(out) as (snapshot, online, _):
        usable = np.flatnonzero(snapshot.usable_R)
        rows = np.sort(np.random.default_rng(0).choice(usable, min(num_clips, len(usable)), replace=False))
        print("\n".join(fidelity_table(snapshot, online, student, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare")
    make.add_argument("archive", type=Path)
    make.add_argument("out", type=Path)
    again = commands.add_parser("overlap")
    again.add_argument("archive", type=Path)
    again.add_argument("out", type=Path)
    for name in ("accuracy", "online", "reading"):
        command = commands.add_parser(name)
        command.add_argument("out", type=Path)
        command.add_argument("--epochs", type=int, default=CHOSEN.epochs)
        command.add_argument("--student", default=CHOSEN.student)
        command.add_argument("--threads", type=int)
    for name in ("accuracy", "online"):
        commands.choices[name].add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    commands.choices["accuracy"].add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    commands.choices["accuracy"].add_argument("--on", type=Path)
    for name in ("overlap", "online"):
        commands.choices[name].add_argument("--share", type=float, default=0.1)
    commands.choices["reading"].add_argument("--clips", type=int, default=1000)
    ask = commands.add_parser("residual")
    ask.add_argument("out", type=Path)
    ask.add_argument("--windows", type=int, default=1000)
    look = commands.add_parser("fidelity")
    look.add_argument("out", type=Path)
    look.add_argument("student", type=Path)
    look.add_argument("--clips", type=int, default=1000)
    args = parser.parse_args()
    if args.command not in ("prepare", "overlap"):  # that runs on Ray, whose workers do so by themselves
        keep_freed_memory()
    if args.command == "prepare":
        prepare(args.archive / "manifest.csv", args.out, demo_target_spec())
    elif args.command == "overlap":
        overlap(args.archive, args.out, args.share)
    elif args.command == "fidelity":
        fidelity(args.out, args.student, args.clips)
    elif args.command == "residual":
        residual(args.out, args.windows)
    else:
        trained(args)


def trained(args: argparse.Namespace) -> None:
    """The commands that train."""
    if args.threads:
        torch.set_num_threads(args.threads)
    spec = CHOSEN.model_copy(update={"student": args.student, "epochs": args.epochs})
    if args.command == "accuracy":
        accuracy(args.out, spec, tuple(args.seeds), tuple(args.arms), args.threads, args.on)
    elif args.command == "reading":
        reading(args.out, spec, args.clips)
    else:
        changes = {"final_epochs": 0, "label_weight": 0.0, "mirror": None}
        online(args.out, spec.model_copy(update=changes), args.share, tuple(args.seeds))


if __name__ == "__main__":
    main()
