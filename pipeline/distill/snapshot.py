"""Snapshots: what a training run reads, as it was when the run began.

Rows of a frame store and of target stores are joined once, by their key, into arrays on local disk that are mapped
and not read: row r of every array is row r of the frame store, its files in order. What memory holds grows by some
30 bytes a video. The frames themselves stay where they are; `Block` says where.

    snapshot.json        what it was made from; written last
    blocks.npy           row groups of the frame store
    rows.npy             `ROW`: key, label, split, group of each row
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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.known import I64, U64, Bools, hash_text, ids_of
from pipeline.store.data_files import read_groups
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.errors import ManifestError, RetryableError, SettingsError, StoreError
from schemas.shard import ShardKey
from schemas.spec import fingerprint_of
from schemas.targets import TOP_K_TEMPERATURES, TargetSpec

ROW = np.dtype(
    [
        ("video", "i4"),
        ("start_us", "i8"),
        ("end_us", "i8"),
        ("label", "i4"),
        ("split", "i2"),
        ("group", "u8"),
        ("teachers", "u1"),
        ("damaged", "?"),
        ("shown", "?"),
    ]
)
"""``video`` is a number, ``split`` one in the snapshot's list, ``label`` a class; -1 is none. ``group`` is a hash
of the group's name, or of the video's id where it has none: rows of one group stay together. ``teachers`` counts
those that have targets; ``shown`` is false for rows that no longer counted."""

BLOCK = np.dtype([("generation", "i4"), ("shard", "i4"), ("part", "i4"), ("first", "i8"), ("rows", "i4")])
"""A row group of the frame store, and its rows of the snapshot. It holds whole videos."""

MAX_TEACHERS = 255
_FILE = "snapshot.json"
_START_BITS = 44  # of a start in microseconds: 200 days
_SHOWN_LABELS = 5


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
    """What a snapshot taken now would be made from: every data file, by who wrote it."""
    return fingerprint_of(
        [
            [store.document.fingerprint, *(f"{f.key}:{f.writer}" for f in store.footers())]
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
    rows_R, places = _lay_out(partial, frames)
    words = _Words(names, label_map or {}, use_labels)
    for number, (store, spec) in enumerate(zip(targets, specs, strict=True)):
        _fill(partial, number, store, spec, rows_R, places, words)
    words.check()
    if not (rows_R["shown"] & (rows_R["teachers"] == len(targets))).any():
        raise SettingsError(
            f"no clip has both frames and targets: {frames.url} holds {len(rows_R)} kept clips, "
            + ", ".join(
                f"{store.url} targets of {(rows_R['teachers'] > 0).sum()} of them" for store in targets
            )
        )
    rows_R.flush()
    about = {
        "digest": digest,
        "frames": frames.url,
        "num_frames": frames.document.spec["clip"]["num_frames"],
        "targets": [{"url": store.url, "fingerprint": store.document.fingerprint} for store in targets],
        "num_classes": num_classes,
        "classes": names,
        "splits": list(words.splits),
        "rows": len(rows_R),
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
    names = tuple(classes) or specs[0].teacher.classes
    if names and len(names) != num_classes:
        raise SettingsError(f"{len(names)} class names were given, the teacher has {num_classes} classes")
    for store, spec in zip(stores, specs, strict=True):
        if spec.teacher.num_classes != num_classes:
            raise SettingsError(
                f"{store.url} has {spec.teacher.num_classes} classes, {stores[0].url} has {num_classes}"
            )
        if names and spec.teacher.classes and not classes and spec.teacher.classes != names:
            raise SettingsError(
                f"the classes of {store.url} are not those of {stores[0].url}, or in another order"
            )
        if not spec.clip.cuts_like(specs[0].clip):
            raise SettingsError(f"{store.url} cuts videos into other clips than {stores[0].url}")
        if bool(spec.logits.top_k) != bool(specs[0].logits.top_k):
            raise SettingsError(f"one of {store.url} and {stores[0].url} keeps all logits, the other top-k")
    return num_classes, names


@dataclass(frozen=True)
class _Places:
    """Where the rows of V videos are, sorted by id: they stand together, sorted by start."""

    ids_V: NDArray[np.bytes_]
    first_V: I64
    count_V: I64

    def rows(self, ids_N: NDArray[np.bytes_], starts_N: I64, all_starts_R: I64) -> I64:
        """The row of each key; -1 where there is none. (N,)"""
        out_N = np.full(len(ids_N), -1, np.int64)
        if not len(self.ids_V) or not len(ids_N):
            return out_N
        at_N = np.searchsorted(self.ids_V, ids_N).clip(max=len(self.ids_V) - 1)
        here_N = self.ids_V[at_N] == ids_N
        videos_U, which_N = np.unique(at_N[here_N], return_inverse=True)
        if not len(videos_U):
            return out_N
        count_U = self.count_V[videos_U]
        rank_C = np.repeat(np.arange(len(videos_U)), count_U)
        begin_U = np.cumsum(count_U) - count_U
        row_C = self.first_V[videos_U][rank_C] + np.arange(len(rank_C)) - begin_U[rank_C]
        key_C = (rank_C << _START_BITS) + all_starts_R[row_C]
        wanted = (which_N.reshape(-1) << _START_BITS) + starts_N[here_N]
        found = np.searchsorted(key_C, wanted).clip(max=len(key_C) - 1)
        out_N[here_N] = np.where(key_C[found] == wanted, row_C[found], -1)
        return out_N


def _lay_out(folder: Path, frames: ShardStore) -> tuple[Any, _Places]:
    """Blocks, and rows with their keys, of the frame store."""
    footers = list(frames.footers())
    counts = frames.in_force()
    blocks: list[tuple[int, int, int, int, int]] = []
    videos: list[tuple[NDArray[np.bytes_], I64, I64]] = []
    total = sum(footer.rows for footer in footers)
    rows_R = np.lib.format.open_memmap(folder / "rows.npy", "w+", ROW, (total,))
    first = 0
    for footer in footers:
        key = footer.key
        groups, read = read_groups(frames.files, key, ["video_id", "start_us", "end_us", "damaged"])
        if read.rows != footer.rows:
            raise RetryableError(f"{frames.url}: shard {key} was rewritten at this moment; run again")
        gone = ids_of(pa.array(sorted(counts.hidden(key.generation, _ids_in(groups))), pa.string()))
        for part, table in enumerate(groups):
            n = table.num_rows
            if not n:
                continue
            blocks.append((key.generation, key.number, part, first, n))
            rows_N, ids_N = np.zeros(n, ROW), ids_of(table["video_id"].combine_chunks())
            for name in ("video", "label", "split"):
                rows_N[name] = -1
            for name in ("start_us", "end_us", "damaged"):
                rows_N[name] = table[name].to_numpy()
            rows_N["shown"] = ~np.isin(ids_N, gone)
            rows_R[first : first + n] = rows_N
            videos.append(_runs(ids_N, rows_N["shown"], first))
            first += n
    np.save(folder / "blocks.npy", np.array(blocks, BLOCK))
    ids, firsts, lengths = (
        (np.concatenate(part) for part in zip(*videos, strict=True))
        if videos
        else (np.empty(0, "S16"), np.empty(0, np.int64), np.empty(0, np.int64))
    )
    order = np.argsort(ids, kind="stable")
    places = _Places(ids[order], firsts[order], lengths[order])
    np.save(folder / "videos.npy", places.ids_V)
    for number, (start, length) in enumerate(
        zip(places.first_V.tolist(), places.count_V.tolist(), strict=True)
    ):
        rows_R["video"][start : start + length] = number
    return rows_R, places


def _ids_in(groups: Sequence[pa.Table]) -> set[str]:
    return {i for table in groups for i in pc.unique(table["video_id"]).to_pylist()}


def _runs(ids_N: NDArray[np.bytes_], shown_N: Bools, first: int) -> tuple[NDArray[np.bytes_], I64, I64]:
    """Id, first row and number of rows of each video of a block that is shown."""
    starts = np.flatnonzero(np.concatenate([[True], ids_N[1:] != ids_N[:-1]]))
    lengths = np.diff(np.append(starts, len(ids_N)))
    shown = shown_N[starts]
    return ids_N[starts][shown], starts[shown] + first, lengths[shown]


class _Words:
    """Labels and splits, as numbers."""

    def __init__(self, classes: Sequence[str], label_map: Mapping[str, str], use_labels: bool) -> None:
        self._classes = {name: i for i, name in enumerate(classes)}
        self._map, self._use_labels = label_map, use_labels
        self._unknown: dict[str, str] = {}
        self.splits: dict[str, int] = {}
        if strange := sorted(set(label_map.values()) - set(classes)):
            raise SettingsError(
                f"the label map names {strange[0]!r}, which is no class: {_some(list(classes))}"
            )

    def labels(self, table: pa.Table) -> NDArray[np.int32]:
        """Class of each row; -1 where it has no label."""
        if not self._use_labels:
            return np.full(table.num_rows, -1, np.int32)
        return self._numbers(table["label"], lambda word: self._class_of(word, table))

    def split_numbers(self, table: pa.Table) -> NDArray[np.int32]:
        return self._numbers(table["split"], lambda word: self.splits.setdefault(word, len(self.splits)))

    def check(self) -> None:
        """Raises ManifestError where a label was no class."""
        if not self._unknown:
            return
        some = ", ".join(f"{label!r} of {uri}" for label, uri in list(self._unknown.items())[:_SHOWN_LABELS])
        classes = _some(list(self._classes)) if self._classes else "the teacher's classes have no names"
        raise ManifestError(
            f"{len(self._unknown)} labels are no class of the teacher: {some} (classes: {classes}). Say what they are "
            "with --label-map, or train without labels: --no-labels"
        )

    def _class_of(self, label: str, table: pa.Table) -> int:
        number = self._classes.get(self._map.get(label, label), -1)
        if number < 0 and label not in self._unknown:
            at = table["label"].to_pylist().index(label)
            self._unknown[label] = str(table["uri"][at].as_py())
        return number

    @staticmethod
    def _numbers(column: pa.ChunkedArray, number: Any) -> NDArray[np.int32]:
        encoded = column.combine_chunks().dictionary_encode()
        table = np.array([*(number(word) for word in encoded.dictionary.to_pylist()), -1], np.int32)
        at = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        return cast(NDArray[np.int32], table[at])


def _fill(
    folder: Path,
    number: int,
    store: ShardStore,
    spec: TargetSpec,
    rows_R: Any,
    places: _Places,
    words: _Words,
) -> None:
    """Lay one teacher's targets into arrays of their own, and what the plan says into the rows."""
    columns = _target_columns(spec)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}-{number}.npy", "w+", dtype, (len(rows_R), width))
        for name, (_, dtype, width) in columns.items()
    }
    starts_R = rows_R["start_us"]
    wanted = [source for sources, _, _ in columns.values() for source in sources]
    for table in scan(store, ["video_id", "start_us", "label", "split", "group", "uri", *wanted]):
        if not table.num_rows:
            continue
        row_N = places.rows(
            ids_of(table["video_id"].combine_chunks()), table["start_us"].to_numpy(), starts_R
        )
        there = row_N >= 0
        row_M = row_N[there]
        for name, (sources, dtype, width) in columns.items():
            values_NW = np.concatenate([_matrix(table[s]) for s in sources], axis=1)
            _check_finite(values_NW, table, store)
            if values_NW.shape[1] != width:
                raise StoreError(f"{store.url}: {values_NW.shape[1]} values in {name}, the spec says {width}")
            arrays[name][row_M] = values_NW[there].astype(dtype)
        rows_R["teachers"][row_M] += 1
        if number == 0:
            rows_R["label"][row_M] = words.labels(table)[there]
            rows_R["split"][row_M] = words.split_numbers(table)[there]
            rows_R["group"][row_M] = _group_hashes(table)[there]
    for array in arrays.values():
        array.flush()


def _target_columns(spec: TargetSpec) -> dict[str, tuple[tuple[str, ...], Any, int]]:
    """Arrays of a teacher: the columns that fill each, its type and width."""
    dtype, k = np.dtype(spec.logits.dtype), spec.teacher.num_classes or 0
    if not spec.logits.top_k:
        return {"logits": (("logits",), dtype, k)}
    kept = min(spec.logits.top_k, k)
    return {
        "logits": (("topk_logits",), dtype, kept),
        "classes": (("topk_class",), np.dtype(np.int32), kept),
        "lse": (
            tuple(f"lse_t{t}" for t in TOP_K_TEMPERATURES),
            np.dtype(np.float32),
            len(TOP_K_TEMPERATURES),
        ),
    }


def _group_hashes(table: pa.Table) -> U64:
    named = pc.binary_join_element_wise("group", table["group"], ":")
    alone = pc.binary_join_element_wise("video", table["video_id"], ":")
    return hash_text(pc.coalesce(named, alone).combine_chunks())


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of numbers as (N, 1), one of lists as (N, width)."""
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(array), array.type.list_size)
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(-1, 1)


def _check_finite(values_NW: NDArray[Any], table: pa.Table, store: ShardStore) -> None:
    bad = ~np.isfinite(values_NW).all(axis=1)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise StoreError(
            f"{store.url}: the logits of the clip at {table['start_us'][at].as_py() / 1e6:g} s of "
            f"{table['uri'][at].as_py()} are not finite; {bad.sum()} in its shard. Locum does not write such: remove "
            "the video with `locum prune` and teach it again"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
