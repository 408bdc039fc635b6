"""Snapshots: what a training run reads, as it was when the run began.

Rows of a frame store and of target stores are joined once, by their key, into arrays on local disk that are mapped
and not read: row r of every array is row r of the frame store, its files in order. What memory holds grows by some
30 bytes a clip (masks), not with the logits. The frames themselves stay where they are; `BLOCK` says where.

    snapshot.json        what it was made from; written last
    blocks.npy           row groups of the frame store
    rows.npy             `snapshot_rows.ROW`: key, label, split, group of each row
    videos.npy           ids of the videos, by their numbers
    logits-0.npy         of each teacher: (R, K), or with top-k (R, J) beside classes-0.npy and lse-0.npy

Shapes: R rows, K classes, J of them kept, V videos.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.snapshot_rows import lay_out_rows
from pipeline.distill.snapshot_targets import fill_targets
from pipeline.distill.snapshot_words import Words
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64, Bools
from schemas.errors import RetryableError, SettingsError
from schemas.shard import ShardKey
from schemas.spec import fingerprint_of
from schemas.targets import TargetSpec

MAX_TEACHERS = 255
_FILE = "snapshot.json"


@dataclass(frozen=True)
class Teacher:
    """Targets of one teacher: memory-mapped ``logits_RK``, or with top-k (R, J), their ``classes_RJ`` and the
    log-sum-exp ``lse_R3`` of all logits at the temperatures of `TOP_K_TEMPERATURES`."""

    logits_RK: NDArray[np.floating]
    classes_RJ: NDArray[np.int32] | None = None
    lse_R3: NDArray[np.float32] | None = None


class Snapshot:
    """An opened snapshot. Holds maps of its files, and no rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: Mapping[str, Any] = json.loads((folder / _FILE).read_text())
        self.rows_R = np.load(folder / "rows.npy", mmap_mode="r")
        self.blocks_B = np.load(folder / "blocks.npy")
        self._ids_V = np.load(folder / "videos.npy", mmap_mode="r")
        self.teachers = tuple(self._teacher(i) for i in range(len(self.about["targets"])))

    @property
    def digest(self) -> str:
        """32 hex digits of what it was made from."""
        return str(self.about["digest"])

    @property
    def num_classes(self) -> int:
        return int(self.about["num_classes"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where the teacher has none."""
        return tuple(self.about["classes"])

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.about["splits"])

    @property
    def num_frames(self) -> int:
        """Frames that are kept of each clip."""
        return int(self.about["num_frames"])

    @cached_property
    def usable_R(self) -> Bools:
        """Rows that count and have targets of every teacher."""
        return cast(Bools, self.rows_R["shown"] & (self.rows_R["teachers"] == len(self.teachers)))

    def video_ids(self, rows_N: I64) -> list[str]:
        """Ids of the videos of some rows."""
        ids_N = self._ids_V[self.rows_R["video"][rows_N]]
        return [i.hex() for i in np.asarray(ids_N).astype("S16").view("V16").tolist()]

    def key(self, block: int) -> tuple[ShardKey, int]:
        """The file of a block, and its row group there."""
        b = self.blocks_B[block]
        return ShardKey(int(b["generation"]), int(b["shard"])), int(b["part"])

    def _teacher(self, number: int) -> Teacher:
        def load(name: str) -> Any:
            path = self.folder / f"{name}-{number}.npy"
            return np.load(path, mmap_mode="r") if path.exists() else None

        return Teacher(load("logits"), load("classes"), load("lse"))


def digest_of(frames: ShardStore, targets: Sequence[ShardStore]) -> str:
    """What a snapshot taken now would be made from: every data file, by who wrote it, and what is said of videos."""
    return fingerprint_of(
        [
            [
                store.document.fingerprint,
                [store.document.spec.get("teacher", {}).get(word) for word in ("classes", "trained_on")],
                [f"{f.key}:{f.writer}" for f in store.footers()],
                [plan.digest for plan in store.plans()],
                sorted(store.tombstones()),
            ]
            for store in (frames, *targets)
        ]
    )


def take_snapshot(
    folder: Path,
    frames: ShardStore,
    targets: Sequence[ShardStore],
    *,
    classes: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None,
    use_labels: bool = True,
) -> Snapshot:
    """Join ``frames`` with ``targets`` into ``folder``; what is there is replaced.

    ``classes`` are names of the teachers' classes, those of the first teacher where not given; ``label_map`` turns
    labels of the manifest into such names.

    Raises
    ------
    SettingsError
        If the teachers have not the same classes, the stores are not of the same clips, or nothing is left.
    ManifestError
        If a label is no class.
    StoreError
        If a stored logit is not finite.
    """
    specs = [TargetSpec(**store.document.spec) for store in targets]
    num_classes, names = _agree(targets, specs, classes)
    digest = digest_of(frames, targets)
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows_R, places = lay_out_rows(partial, frames)
    words = Words(names, label_map or {}, use_labels)
    unkept = [
        fill_targets(partial, number, store, spec, rows_R, places, words)
        for number, (store, spec) in enumerate(zip(targets, specs, strict=True))
    ]
    words.check()
    if not (rows_R["shown"] & (rows_R["teachers"] == len(targets))).any():
        raise SettingsError(
            f"no clip has both frames and targets of all teachers: {frames.url} holds {len(rows_R)} kept clips, and "
            + ", ".join(
                f"{store.url} {n} clips without frames" for store, n in zip(targets, unkept, strict=True)
            )
        )
    rows_R.flush()
    if digest_of(frames, targets) != digest:
        raise RetryableError("the stores changed while they were read (a run that writes them?): run again")
    about = {
        "digest": digest,
        "frames": frames.url,
        "num_frames": frames.document.spec["clip"]["num_frames"],
        "targets": [{"url": store.url, "fingerprint": store.document.fingerprint} for store in targets],
        "num_classes": num_classes,
        "classes": names,
        "splits": list(words.splits),
        "rows": len(rows_R),
        "clips_without_frames": unkept,
    }
    (partial / _FILE).write_text(json.dumps(about, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return Snapshot(folder)


def _agree(
    stores: Sequence[ShardStore], specs: Sequence[TargetSpec], classes: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """Number and names of the classes of all teachers."""
    if not 1 <= len(specs) <= MAX_TEACHERS:
        raise SettingsError(f"1 to {MAX_TEACHERS} target stores are wanted, got {len(specs)}")
    num_classes = specs[0].teacher.num_classes or 0
    named = [spec.teacher.classes for spec in specs if spec.teacher.classes]
    names = tuple(classes) or specs[0].teacher.classes
    if names and len(names) != num_classes:
        raise SettingsError(f"{len(names)} class names were given, the teacher has {num_classes} classes")
    for store, spec in zip(stores, specs, strict=True):
        if spec.teacher.num_classes != num_classes:
            raise SettingsError(
                f"{store.url} has {spec.teacher.num_classes} classes, {stores[0].url} has {num_classes}"
            )
        if named and spec.teacher.classes and spec.teacher.classes != named[0]:
            raise SettingsError(
                f"the classes of {store.url} are not those of another teacher, or in another order"
            )
        if not spec.clip.cuts_like(specs[0].clip):
            raise SettingsError(f"{store.url} cuts videos into other clips than {stores[0].url}")
        if bool(spec.logits.top_k) != bool(specs[0].logits.top_k):
            raise SettingsError(f"one of {store.url} and {stores[0].url} keeps all logits, the other top-k")
    return num_classes, names
