"""Distil: train a student from cached targets and kept frames. No video is decoded, and the teacher is not run.

    snapshot of both stores  ->  training  ->  confidence heads  ->  predictions, metrics, an exported file

Running the same call again goes on after an interruption, and returns what is there once it is done.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.distill.export import export_student
from pipeline.distill.finish import Finished, finish
from pipeline.distill.loader import Augmentation, Loader
from pipeline.distill.loop import OnTrainProgress, Training
from pipeline.distill.snapshot import Snapshot, digest_of, take_snapshot
from pipeline.distill.splits import Role, roles
from pipeline.distill.student import Trunk
from pipeline.distill.targets import TargetReader
from pipeline.known import Bools
from pipeline.models.student import build_student, for_classes
from pipeline.models.teacher import pick_device
from pipeline.models.weights import cache_folder
from pipeline.store.document import library_versions, now
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import FRAMES, TARGETS
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec
from schemas.errors import SettingsError
from schemas.frames import FrameSpec
from schemas.model import ModelRef
from schemas.student import TrainSpec
from schemas.targets import TargetSpec

log = logging.getLogger("locum.distill")

STUDENT_FILE = "student.json"


@dataclass(frozen=True)
class DistilOptions:
    """``frames`` is the frame store; the one beside the targets where not given. ``num_threads`` changes rounding."""

    name: str = "student"
    frames: str | None = None
    device: str = "auto"
    num_threads: int | None = None


@dataclass(frozen=True)
class DistilReport:
    """Where the student is, and what ``student.json`` says of it."""

    url: str
    about: Mapping[str, Any]
    trained_now: bool


def distil(
    targets: Sequence[str],
    out: str,
    spec: TrainSpec = TrainSpec(),
    options: DistilOptions = DistilOptions(),
    *,
    on_progress: OnTrainProgress | None = None,
) -> DistilReport:
    """Train a student from the target stores ``targets`` into a folder of its own under ``out``.

    Raises
    ------
    SettingsError
        If the stores, the student and the settings do not fit one another; found before training.
    ModelError
        If training goes astray; checkpoints stand.
    """
    stores = [_open(url, TARGETS.name) for url in targets]
    frames = _frames_of(stores, options.frames)
    frame_spec = FrameSpec(**frames.document.spec)
    teachers = [TargetSpec(**store.document.spec) for store in stores]
    num_classes = _check(stores, teachers, frames, frame_spec, spec)
    classes = spec.classes or teachers[0].teacher.classes
    student = for_classes(spec.student_ref(), num_classes, classes)
    shape_THW = (frame_spec.clip.num_frames, frame_spec.view.height, frame_spec.view.width)
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    device = pick_device(options.device)
    model = build_student(student, shape_THW, seed=spec.seed, device=device)
    digest = digest_of(frames, stores)
    fingerprint = spec.fingerprint(student, digest)
    files = StoreFiles.below(out, f"{options.name}-{fingerprint[:12]}")
    if files.exists(STUDENT_FILE):
        return DistilReport(files.url, json.loads(files.read(STUDENT_FILE)), trained_now=False)
    work = _work_folder(files, fingerprint)
    snapshot = _snapshot(work / "snapshot", digest, frames, stores, spec)
    reader = TargetReader(snapshot, spec.temperature, spec.multi_label, spec.teacher_weights or None)
    loader = Loader(reader, frames)
    role_R = roles(
        snapshot.splits, snapshot.rows_R["split"], snapshot.rows_R["group"], snapshot.usable_R, seed=spec.seed
    )
    _check_labels(snapshot, role_R == Role.TRAIN, spec)
    training = Training(
        model,
        student.input,
        spec,
        loader,
        role_R == Role.TRAIN,
        role_R == Role.VAL,
        work / "checkpoints",
        device=device,
        augment=Augmentation(spec.shift, _mirrored(spec, student)),
        on_progress=on_progress,
    )
    state = training.run()
    learnt_by_teacher = _known_to_teacher(snapshot, teachers, spec)
    done = finish(
        Trunk(model, student.input),
        spec,
        loader,
        reader,
        role_R,
        learnt_by_teacher,
        work / "predictions",
        device,
    )
    exported = export_student(done.student, shape_THW, work / "student.pt2")
    about = {
        "fingerprint": fingerprint,
        "snapshot": digest,
        "train": spec.model_dump(mode="json"),
        "student": student.model_dump(mode="json"),
        "targets": [{"url": s.url, "fingerprint": s.document.fingerprint} for s in stores],
        "frames": {"url": frames.url, "fingerprint": frames.document.fingerprint, **frames.document.spec},
        "classes": list(classes),
        "input_shape": ["N", *shape_THW, 3],
        "parameters": sum(p.numel() for p in model.parameters()),
        "clips": {role.name.lower(): int((role_R == role).sum()) for role in Role if role >= 0},
        "history": state.to_json()["history"],
        "best_epoch": state.best_epoch,
        "train_seconds": round(state.seconds, 3),
        **done.to_json(),
        "exported_max_difference": exported,
        "versions": library_versions(),
        "made_at": now(),
    }
    _publish(files, work, done, about)
    shutil.rmtree(work, ignore_errors=True)
    return DistilReport(files.url, about, trained_now=True)


def _open(url: str, kind: str) -> ShardStore:
    store = ShardStore.open(url)
    if store.kind.name != kind:
        raise SettingsError(f"{store.url} is a store of {store.kind.name}: one of {kind} is wanted")
    return store


def _frames_of(targets: Sequence[ShardStore], url: str | None) -> ShardStore:
    """The frame store that was named, or the only one of these clips beside the targets."""
    if not targets:
        raise SettingsError("no target store was named")
    if url is not None:
        return _open(url, FRAMES.name)
    beside = StoreFiles(targets[0].url.rpartition("/")[0])
    found = []
    for name in beside.folders():
        inner = f"{beside.url}/{name}"
        if ShardStore.is_store(inner):
            store = ShardStore.open(inner)
            if store.kind == FRAMES and _clip_of(store).cuts_like(_clip_of(targets[0])):
                found.append(store)
    if len(found) != 1:
        there = ", ".join(s.url for s in found)
        raise SettingsError(
            f"several frame stores lie beside {targets[0].url}: name one with --frames ({there})"
            if found
            else f"no frames were kept of the clips of {targets[0].url}: run `locum frames {targets[0].url}` first"
        )
    return found[0]


def _clip_of(store: ShardStore) -> ClipSpec:
    return ClipSpec(**store.document.spec["clip"])


def _check(
    stores: Sequence[ShardStore],
    teachers: Sequence[TargetSpec],
    frames: ShardStore,
    frame_spec: FrameSpec,
    spec: TrainSpec,
) -> int:
    """Number of classes. Finds what does not fit before anything is built."""
    if not frame_spec.clip.cuts_like(teachers[0].clip):
        raise SettingsError(f"{frames.url} holds other clips than {stores[0].url}")
    for store in (*stores, frames):
        if not store.committed():
            raise SettingsError(f"{store.url} is empty: nothing is committed there yet")
    num_classes = teachers[0].teacher.num_classes or 0
    if num_classes < 2 and not spec.multi_label:
        raise SettingsError(f"{stores[0].url} has {num_classes} class: there is nothing to tell apart")
    return num_classes


def _check_labels(snapshot: Snapshot, train_R: Bools, spec: TrainSpec) -> None:
    labels = np.unique(snapshot.rows_R["label"][train_R])
    known = labels[labels >= 0]
    if spec.label_weight == 1 and len(known) < 2:
        raise SettingsError(
            "a student that learns from labels alone needs clips of two classes to train on; there are "
            + (f"only some of {snapshot.classes[known[0]]!r}" if len(known) else "none with a label")
        )


def _work_folder(files: StoreFiles, fingerprint: str) -> Path:
    """Where checkpoints lie meanwhile: within the student's folder, or a cache of this machine where that is remote."""
    return Path(files.at("work")) if files.is_local else cache_folder().with_name("distill") / fingerprint


def _snapshot(
    folder: Path, digest: str, frames: ShardStore, stores: Sequence[ShardStore], spec: TrainSpec
) -> Snapshot:
    if (folder / "snapshot.json").exists():
        there = Snapshot(folder)
        if there.digest == digest:
            return there
    return take_snapshot(
        folder,
        frames,
        stores,
        classes=spec.classes,
        label_map=spec.label_map,
        use_labels=spec.use_labels,
    )


def _mirrored(spec: TrainSpec, student: ModelRef) -> tuple[int, ...] | None:
    """The class that each class is in a mirror.

    Raises
    ------
    SettingsError
        If it names a class that there is not, or is no mirror: what is mirrored twice must be as before.
    """
    if spec.mirror is None:
        return None
    number = {name: i for i, name in enumerate(student.classes)}
    if strange := sorted({*spec.mirror, *spec.mirror.values()} - set(number)):
        raise SettingsError(f"--mirror names {strange[0]!r}, which is no class of the teacher")
    both_ways = {**{b: a for a, b in spec.mirror.items()}, **spec.mirror}
    if wrong := [name for name, other in both_ways.items() if both_ways[other] != name]:
        raise SettingsError(f"--mirror sends {wrong[0]!r} to {both_ways[wrong[0]]!r}, and that not back")
    names = student.classes or ("",) * (student.num_classes or 0)
    return tuple(number[both_ways[name]] if name in both_ways else i for i, name in enumerate(names))


def _known_to_teacher(snapshot: Snapshot, teachers: Sequence[TargetSpec], spec: TrainSpec) -> Bools:
    """Rows of splits that a teacher learnt from: what it says of them says nothing of its confidence."""
    named = {*spec.teacher_trained_on, *(s for t in teachers for s in t.teacher.trained_on)}
    if strange := sorted(named - set(snapshot.splits)):
        log.warning("no clip is in the split %r, from which the teacher is said to have learnt", strange[0])
    numbers = [i for i, name in enumerate(snapshot.splits) if name in named]
    return np.isin(snapshot.rows_R["split"], numbers)


def _publish(files: StoreFiles, work: Path, done: Finished, about: Mapping[str, Any]) -> None:
    """Put the student's files in place, ``student.json`` last."""
    files.put_over("student.safetensors", done.weights)
    files.put_over("student.pt2", (work / "student.pt2").read_bytes())
    for path in sorted((work / "predictions").glob("*.parquet")):
        files.put_over(f"predictions/{path.name}", path.read_bytes())
    files.put_over(STUDENT_FILE, json.dumps(about, indent=1).encode())
