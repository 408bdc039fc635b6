"""What a student is to learn from, and who is to learn: opened, and seen to fit one another before any long work."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.distill.ranks import Ranks
from pipeline.distill.snapshot import Snapshot
from pipeline.distill.splits import Role, role_of
from pipeline.distill.targets import check_readable
from pipeline.models.student import for_classes
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import FRAMES, TARGETS
from pipeline.store.shard_store import ShardStore
from schemas.arrays import Bools
from schemas.clip import ClipSpec
from schemas.errors import SettingsError
from schemas.frames import FrameSpec
from schemas.model import ModelRef
from schemas.student import TrainSpec
from schemas.targets import TargetSpec

log = logging.getLogger("locum.distill")

MIN_CLIPS = 2


@dataclass(frozen=True)
class Inputs:
    """What is learnt from, and who learns: known to fit one another."""

    targets: tuple[ShardStore, ...]
    teachers: tuple[TargetSpec, ...]
    frames: ShardStore
    frame_spec: FrameSpec
    student: ModelRef
    mirror: tuple[int, ...] | None

    @property
    def shape_THW(self) -> tuple[int, int, int]:
        view = self.frame_spec.view
        return self.frame_spec.clip.num_frames, view.height, view.width


def fitting_inputs(
    targets: Sequence[str], spec: TrainSpec, frames_url: str | None, workers: int = 1
) -> Inputs:
    """The stores and the student, once they were seen to fit, also a batch to so many workers.

    Raises
    ------
    SettingsError
        If they do not; nothing was built.
    """
    if spec.batch_size % workers:
        raise SettingsError(
            f"a batch of {spec.batch_size} clips cannot be shared evenly by {workers} workers"
        )
    stores = tuple(open_kind(url, TARGETS.name) for url in targets)
    frames = _frames_of(stores, frames_url)
    frame_spec = FrameSpec(**frames.document.spec)
    teachers = tuple(TargetSpec(**store.document.spec) for store in stores)
    num_classes = _check(stores, teachers, frames, frame_spec, spec)
    student = for_classes(spec.student_ref(), num_classes, spec.classes or teachers[0].teacher.classes)
    return Inputs(stores, teachers, frames, frame_spec, student, _mirrored(spec, student))


def open_kind(url: str, kind: str) -> ShardStore:
    """The store at ``url``. Raises SettingsError where it is of another kind."""
    store = ShardStore.open(url)
    if store.kind.name != kind:
        raise SettingsError(f"{store.url} is a store of {store.kind.name}: one of {kind} is wanted")
    return store


def _frames_of(targets: Sequence[ShardStore], url: str | None) -> ShardStore:
    """The frame store that was named, or the only one of these clips beside the targets."""
    if not targets:
        raise SettingsError("no target store was named")
    if url is not None:
        return open_kind(url, FRAMES.name)
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
    overlap = teachers[0].clip.stride_us < teachers[0].clip.length_us
    if spec.overlapping == "one" and not overlap:
        raise SettingsError(f"--overlapping one: the clips of {stores[0].url} do not overlap")
    if spec.shift and overlap:
        raise SettingsError(
            f"--shift: the clips of {stores[0].url} overlap, so exact targets of shifted windows are there: say "
            "--overlapping one instead"
        )
    num_classes = teachers[0].teacher.num_classes or 0
    kept_only, weights = bool(teachers[0].logits.top_k), spec.teacher_weights or None
    check_readable(len(teachers), kept_only, spec.temperature, spec.multi_label, weights)
    if num_classes < 2:
        raise SettingsError(f"{stores[0].url} has {num_classes} class: there is nothing to tell apart")
    return num_classes


def check_rows(snapshot: Snapshot, train_R: Bools, spec: TrainSpec, ranks: Ranks) -> None:
    least = MIN_CLIPS * ranks.world
    if int(train_R.sum()) < least:
        raise SettingsError(f"{train_R.sum()} clips are left to train on: {least} are the least")
    labels = np.unique(snapshot.rows_R["label"][train_R])
    known = labels[labels >= 0]
    if spec.label_weight == 1 and len(known) < 2:
        raise SettingsError(
            "a student that learns from labels alone needs clips of two classes to train on; there are "
            + (f"only some of {snapshot.classes[known[0]]!r}" if len(known) else "none with a label")
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


def known_to_teacher(snapshot: Snapshot, teachers: Sequence[TargetSpec], spec: TrainSpec) -> Bools:
    """Rows of splits that a teacher learnt from: what it says of them says nothing of its confidence."""
    named = {*spec.teacher_trained_on, *(s for t in teachers for s in t.teacher.trained_on)}
    meant = {role_of(name, spec.split_map) for name in named} - {None}
    numbers = [
        i for i, name in enumerate(snapshot.splits) if name in named or role_of(name, spec.split_map) in meant
    ]
    if named and not numbers and Role.TRAIN not in meant:
        log.warning(
            "no clip is in a split from which the teacher is said to have learnt: %s",
            ", ".join(sorted(named)),
        )
    if Role.TRAIN in meant:  # rows without a split are train
        numbers.append(-1)
    return np.isin(snapshot.rows_R["split"], numbers)
