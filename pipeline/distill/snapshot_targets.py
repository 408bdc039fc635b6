"""Lays the targets of a teacher into the arrays of a snapshot.

Shapes: R rows of the snapshot, N of a shard, W values a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.distill.snapshot_rows import Places
from pipeline.distill.snapshot_words import Words
from pipeline.known import group_hashes, ids_of
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.errors import StoreError
from schemas.targets import TOP_K_TEMPERATURES, TargetSpec


def fill_targets(
    folder: Path,
    number: int,
    store: ShardStore,
    spec: TargetSpec,
    rows_R: Any,
    places: Places,
    words: Words,
) -> int:
    """Lay one teacher's targets into arrays of their own, and what the plan says into the rows.

    Number of its clips of which no frames were kept.
    """
    columns = _target_columns(spec)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}-{number}.npy", "w+", dtype, (len(rows_R), width))
        for name, (_, dtype, width) in columns.items()
    }
    starts_R = rows_R["start_us"]
    unkept = 0
    wanted = [source for sources, _, _ in columns.values() for source in sources]
    for table in scan(store, ["video_id", "start_us", "label", "split", "group", "uri", "file_id", *wanted]):
        if not table.num_rows:
            continue
        row_N = places.rows(
            ids_of(table["video_id"].combine_chunks()), table["start_us"].to_numpy(), starts_R
        )
        there = row_N >= 0
        unkept += int((~there).sum())
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
            rows_R["group"][row_M] = group_hashes(table)[there]
    for array in arrays.values():
        array.flush()
    return unkept


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
            f"{table['uri'][at].as_py()} are not finite; {bad.sum()} in its shard. Locum does not write such: take "
            "the video out with `locum prune`"
        )
