"""Students from the cache, from labels alone, and with the teacher in the loop: what each is worth and costs.

    python -m bench.motion_archive ARCHIVE                    # first: some thousand synthetic videos
    python -m bench.distill prepare ARCHIVE OUT               # the demo's teacher over them, and kept frames
    python -m bench.distill accuracy OUT [--epochs 8]         # labels against cache, 3 seeds, paired, by group
    python -m bench.distill accuracy OUT --on OTHER           # the same students, judged on another archive's OUT
    python -m bench.distill online OUT [--share 0.1]          # cache against the teacher in the loop: cost and KL
    python -m bench.distill reading OUT                       # training from the cache, and by decoding video
    python -m bench.distill residual OUT                      # pooled targets against the teacher on the very window
    python -m bench.distill fidelity OUT STUDENT              # what a student says of JPEGs and of decoded frames

``accuracy`` scores the test split of the archive once, by what `jobs.distill` writes; students that are there are
not trained again, so several may run side by side with some seeds or arms, and one with all of them at the end.
``online`` trains its arms with the same weights, order and epochs on a share of the training groups, without the final
phase (which raises the KL on purpose), and prints clips a second, the seconds of a whole run for a second student, and
the KL on held-out clips. The teacher in the loop is asked about the clips of the cache; and about windows that begin
anywhere, which a cache cannot answer for."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.distill_arms.compare import against_online, held, paired, summary
from bench.distill_arms.elsewhere import said_elsewhere
from bench.distill_arms.fidelity import fidelity as fidelity_table
from bench.distill_arms.online import OnlineLoader, VideoLoader
from bench.distill_arms.reading import reading as reading_table
from bench.distill_arms.residual import residual as residual_table
from bench.distill_arms.runs import training_of
from jobs.distill import DistilOptions, distil
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from jobs.training_console import epoch_line
from pipeline.demo.motion import MIRROR_X
from pipeline.demo.spec import demo_target_spec
from pipeline.distill.loader import Loader
from pipeline.distill.loop import TrainProgress, TrainState
from pipeline.distill.predict import run_over
from pipeline.distill.snapshot import Snapshot, take_snapshot
from pipeline.distill.splits import Role, folds, roles
from pipeline.distill.targets import TargetReader
from pipeline.models.distilled import Trunk
from pipeline.models.memory import keep_freed_memory
from pipeline.models.teacher import Teacher
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.cluster import RayOptions
from schemas.frames import FrameSpec, KeepSpec
from schemas.student import TrainSpec
from schemas.targets import TargetSpec

KEEP = KeepSpec(num_frames=8, width=48, height=48)
SEEDS = (1, 2, 3)
CHOSEN = TrainSpec(student="frames", epochs=8, mirror=MIRROR_X)
"""Chosen on an archive of another seed (`bench.motion_archive.TUNING_SEED`), for both arms alike."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def told(p: TrainProgress) -> None:
    if p.last is not None and p.step % max(1, p.steps // max(1, p.epochs)) == 0:
        say("  " + epoch_line(p.last, p.epochs))


def prepare(archive: Path, out: Path) -> None:
    """Teach and keep frames, on Ray. Run again to continue."""
    with runner_for(RayOptions(), local=False) as runner:
        report = teach(
            str(archive / "manifest.csv"),
            str(out),
            demo_target_spec(),
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


@dataclass(frozen=True)
class Run:
    """One arm of `online`."""

    name: str
    state: TrainState
    seconds: float
    kl_N: NDArray[np.float64]
    right_N: NDArray[np.float64]
    """Of each held-out clip: divergence from the teacher; whether its label was found, NaN where it has none."""

    @property
    def clips_per_second(self) -> float:
        return self.state.clips / self.state.seconds if self.state.seconds else 0.0


def online(out: Path, spec: TrainSpec, share: float) -> None:
    targets, frames = (ShardStore.open(url) for url in stores(out))
    teacher_spec = TargetSpec(**targets.document.spec)
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as folder:
        started = time.perf_counter()
        snapshot = take_snapshot(Path(folder) / "snapshot", frames, [targets])
        snapshot_seconds = time.perf_counter() - started
        reader = TargetReader(snapshot, spec.temperature)
        role_R = roles(snapshot.splits, snapshot.rows_R["split"], snapshot.rows_R["group"], snapshot.usable_R)
        parts = folds(snapshot.rows_R["group"], max(1, round(1 / share)))
        train_R = (role_R == Role.TRAIN) & (parts == 0)
        test_R = role_R == Role.TEST
        plain = Loader(reader, frames)
        asking = OnlineLoader(reader, frames, targets, Teacher(teacher_spec, batch_size=spec.batch_size))
        arms = (
            ("cache", plain, False),
            ("online, the same windows", asking, False),
            ("online, windows anywhere", asking, True),
        )
        print(f"{train_R.sum()} clips to train on, {spec.epochs} epochs; {test_R.sum()} held out")
        runs = []
        for name, loader, shift in arms:
            say(name)
            arm = spec.model_copy(update={"shift": shift})
            runs.append(_train(name, loader, plain, snapshot, frames, arm, train_R, test_R, Path(folder)))
        cache, *live = runs
        total = cache.seconds + snapshot_seconds
        print(f"{'':24s} {'seconds':>9s} {'clips/s':>9s} {'KL':>8s} {'accuracy':>9s}")
        for run in runs:
            kl, accuracy = run.kl_N.mean(), np.nanmean(run.right_N)
            print(f"{run.name:24s} {run.seconds:9.1f} {run.clips_per_second:9.1f} {kl:8.4f} {accuracy:9.4f}")
        print(f"cache's seconds with the snapshot's: {total:.1f}")
        group_N = snapshot.rows_R["group"][test_R]
        for run in live:
            print(f"cache against {run.name}: {run.seconds / total:.2f} times cheaper")
            print("\n".join(against_online(cache.kl_N, run.kl_N, cache.right_N, run.right_N, group_N)))


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


def _train(
    name: str,
    loader: Loader,
    plain: Loader,
    snapshot: Snapshot,
    frames: ShardStore,
    spec: TrainSpec,
    train_R: np.ndarray,
    test_R: np.ndarray,
    folder: Path,
) -> Run:
    kept = FrameSpec(**frames.document.spec)
    training, model, student = training_of(snapshot, loader, kept, spec, train_R, folder / name, told)
    started = time.perf_counter()
    state = training.run()
    seconds = time.perf_counter() - started
    trunk, at_one = Trunk(model.eval(), student.input, has_features=False), TargetReader(snapshot)
    kls, rights = [], []
    for rows, logits, _ in run_over(trunk, plain, test_R, torch.device("cpu")):
        p, q = at_one.dense(rows).astype(np.float64), softmax(logits).astype(np.float64)
        tiny = np.finfo(np.float32).tiny
        kls.append((p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny)))).sum(axis=1))
        label = snapshot.rows_R["label"][rows]
        rights.append(np.where(label < 0, np.nan, q.argmax(axis=1) == label))
    return Run(name, state, seconds, np.concatenate(kls), np.concatenate(rights))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare")
    make.add_argument("archive", type=Path)
    make.add_argument("out", type=Path)
    for name in ("accuracy", "online", "reading"):
        command = commands.add_parser(name)
        command.add_argument("out", type=Path)
        command.add_argument("--epochs", type=int, default=CHOSEN.epochs)
        command.add_argument("--student", default=CHOSEN.student)
        command.add_argument("--threads", type=int)
    commands.choices["accuracy"].add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    commands.choices["accuracy"].add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    commands.choices["accuracy"].add_argument("--on", type=Path)
    commands.choices["online"].add_argument("--share", type=float, default=0.1)
    commands.choices["reading"].add_argument("--clips", type=int, default=1000)
    ask = commands.add_parser("residual")
    ask.add_argument("out", type=Path)
    ask.add_argument("--windows", type=int, default=1000)
    look = commands.add_parser("fidelity")
    look.add_argument("out", type=Path)
    look.add_argument("student", type=Path)
    look.add_argument("--clips", type=int, default=1000)
    args = parser.parse_args()
    if args.command != "prepare":  # that runs on Ray, whose workers do so by themselves
        keep_freed_memory()
    if args.command == "prepare":
        prepare(args.archive, args.out)
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
        changes = {"final_epochs": 0, "label_weight": 0.0, "mirror": None, "seed": 1}
        online(args.out, spec.model_copy(update=changes), args.share)


if __name__ == "__main__":
    main()
