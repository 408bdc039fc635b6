"""What a contender has written: which rows there are of those that there should be, and whether they say the same.

A row is known by its file's name and the clip of that file whose start is nearest (libraries differ by microseconds in
what a video's last clip begins at).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore

Key = tuple[str, int]
_TOLERANCE_US = 20_000


@dataclass
class Rows:
    """``good`` maps file name and number of the clip to (top1, logits), of sound videos."""

    good: dict[Key, tuple[int, np.ndarray]] = field(default_factory=dict)
    doubled: int = 0
    unknown: int = 0
    of_bad_videos: int = 0


def rows_of(out: Path, starts_us: dict[str, list[int]]) -> Rows:
    """The rows below ``out``, a folder of Parquet files or of a Locum store. ``starts_us``: clips of sound videos."""
    rows = Rows()
    table = _table(out)
    if table is None:
        return rows
    logits_NK = np.array(table["logits"].to_pylist(), np.float32)
    columns = (table[name].to_pylist() for name in ("uri", "start_us", "top1"))
    for uri, start_us, top1, logits_K in zip(*columns, logits_NK, strict=True):
        name = Path(unquote(urlsplit(uri).path)).name
        if name not in starts_us:
            rows.of_bad_videos += 1
            continue
        starts = np.array(starts_us[name])
        nearest = int(np.abs(starts - start_us).argmin())
        if abs(int(starts[nearest]) - start_us) > _TOLERANCE_US:
            rows.unknown += 1
        elif (name, nearest) in rows.good:
            rows.doubled += 1
        else:
            rows.good[name, nearest] = (top1, logits_K)
    return rows


def difference(rows: Rows, reference: Rows) -> tuple[float | None, float | None]:
    """Share of equal top1, and RMS difference of logits by their spread over clips, of the rows that both have."""
    keys = [key for key in reference.good if key in rows.good]
    if not keys:
        return None, None
    same = sum(rows.good[key][0] == reference.good[key][0] for key in keys) / len(keys)
    ours_NK, theirs_NK = (np.stack([r.good[key][1] for key in keys]) for r in (rows, reference))
    spread = float(np.sqrt(np.mean((theirs_NK - theirs_NK.mean(axis=0)) ** 2))) or 1.0
    return same, float(np.sqrt(np.mean((ours_NK - theirs_NK) ** 2))) / spread


def count_rows(out: Path) -> int:
    """Rows in all finished Parquet files of targets below ``out``, by their footers."""
    total = 0
    for path in _files(out):
        try:
            total += pq.ParquetFile(path).metadata.num_rows
        except (OSError, pa.ArrowInvalid):  # being written
            continue
    return total


def _files(out: Path) -> list[Path]:
    stores = list(out.glob("targets-*"))
    return sorted((stores[0] / "data" if stores else out).rglob("*.parquet"))


def _table(out: Path) -> pa.Table | None:
    columns = ["uri", "start_us", "top1", "logits"]
    for store in out.glob("targets-*"):
        return read(ShardStore.open(str(store)), columns)
    tables = []
    for path in _files(out):
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid):  # a writer died over it
            continue
        tables.append(pa.table({name: _plain(file.read([name])[name]) for name in columns}))
    return pa.concat_tables(tables) if tables else None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of some kind of float as lists of float32, strings as strings."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    if (
        pa.types.is_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
        or pa.types.is_large_list(column.type)
    ):
        return pa.chunked_array([pa.array(column.to_pylist(), pa.list_(pa.float32()))])
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column.cast(column.type)
