"""Plan files: one Parquet file a generation, one row a video, rows in shard order.

Written once, if absent, so two adders cannot both be generation 2. The counts that a resume needs stand in the
file's metadata, so listing what is pending reads no rows; a shard's videos are found by row-group statistics.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import StoreFiles
from pipeline.store.kinds import StoreKind
from schemas.errors import CorruptStoreError
from schemas.shard import Shard, ShardKey
from schemas.video import Video

PLAN_KEY = b"locum_plan"
PLAN_FOLDER = "plan"
_NAME = re.compile(r"^g(\d{4,})\.parquet$")
_MIN_GROUP_ROWS = 4096


@dataclass(frozen=True)
class PlanHeader:
    """Counts of one generation.

    ``reopens`` says that its videos were planned before and are computed anew: their rows and failures in
    earlier generations no longer count. ``notes`` holds what made it (the source that was read, …).
    """

    generation: int
    videos: int
    clips: int
    shards: int
    reopens: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def plan_name(generation: int) -> str:
    return f"{PLAN_FOLDER}/g{generation:04d}.parquet"


def list_generations(files: StoreFiles) -> list[int]:
    """Generations that exist, ascending. Raises CorruptStoreError where one is missing in between."""
    found = sorted(int(m[1]) for name in files.list(PLAN_FOLDER) if (m := _NAME.match(name)))
    if found != list(range(1, len(found) + 1)):
        raise CorruptStoreError(f"{files.url}/{PLAN_FOLDER}: generations {found} are not 1 to {len(found)}")
    return found


def encode_plan(batches: Iterable[pa.RecordBatch], kind: StoreKind, header: PlanHeader) -> bytes:
    """Parquet bytes of a plan whose counts are taken from the rows (``header`` gives the rest).

    A row group ends only between two shards, so that reading one shard reads few rows.
    """
    sink = io.BytesIO()
    videos = clips = 0
    shards = -1
    held: list[pa.RecordBatch] = []
    held_rows = 0
    with pq.ParquetWriter(sink, kind.plan_schema, compression="zstd", write_page_index=False) as writer:
        for batch in batches:
            videos += batch.num_rows
            clips += pc.sum(batch["clips"]).as_py() or 0
            shards = max(shards, pc.max(batch["shard"]).as_py() if batch.num_rows else -1)
            held.append(batch)
            held_rows += batch.num_rows
            if held_rows >= _MIN_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(held, kind.plan_schema), row_group_size=held_rows)
                held, held_rows = [], 0
        if held_rows or not videos:
            writer.write_table(pa.Table.from_batches(held, kind.plan_schema), row_group_size=max(1, held_rows))
        final = PlanHeader(header.generation, videos, clips, shards + 1, header.reopens, header.notes)
        writer.add_key_value_metadata({PLAN_KEY.decode(): json.dumps(asdict(final))})
    return sink.getvalue()


class PlanFile:
    """One generation, open for reading, by several threads if need be."""

    def __init__(self, files: StoreFiles, kind: StoreKind, generation: int) -> None:
        self._reading = threading.Lock()  # Arrow's Parquet reader is not safe to share between threads
        self._files, self._kind, self.generation = files, kind, generation
        self._where = f"{files.url}/{plan_name(generation)}"
        try:
            if files.is_local:
                self._parquet = pq.ParquetFile(files.at(plan_name(generation)), memory_map=True)
            else:
                self._parquet = pq.ParquetFile(pa.BufferReader(files.read(plan_name(generation))))
            body = json.loads((self._parquet.metadata.metadata or {})[PLAN_KEY])
            self.header = PlanHeader(**body)
        except (pa.ArrowInvalid, KeyError, ValueError, TypeError) as e:
            raise CorruptStoreError(f"{self._where}: not a plan of Locum: {e}") from e

    @cached_property
    def digest(self) -> str:
        """128-bit BLAKE2b of the plan file; stands in the footer of every data file of this generation."""
        h = hashlib.blake2b(digest_size=16)
        with self._files.open(plan_name(self.generation)) as f:
            while block := f.read(2**20):
                h.update(block)
        return h.hexdigest()

    def keys(self) -> Iterator[ShardKey]:
        return (ShardKey(self.generation, n) for n in range(self.header.shards))

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        for group in range(self._parquet.metadata.num_row_groups):
            with self._reading:
                table = self._parquet.read_row_group(group, columns=columns)
            yield from table.to_batches(max_chunksize=16384)

    def rows(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Plan rows of shard ``number``, sorted by id; empty where it has none."""
        groups = [g for g, (low, high) in enumerate(self._group_bounds) if low <= number <= high]
        with self._reading:
            table = self._parquet.read_row_groups(groups, columns=columns and [*{*columns, "shard"}])
        table = table.filter(pc.equal(table["shard"], number))
        return table.sort_by(self._kind.id_column) if table.num_rows else table

    def shard(self, key: ShardKey) -> Shard:
        """The videos of a shard, as a task wants them."""
        rows = self.rows(key.number).to_pylist()
        return Shard(key, tuple(_video_of(row, self._kind.id_column) for row in rows))

    @cached_property
    def _group_bounds(self) -> list[tuple[int, int]]:
        column = self._parquet.schema_arrow.get_field_index("shard")
        # Nested columns (uris) have one leaf each, so the leaf index equals the field index.
        bounds = []
        for g in range(self._parquet.metadata.num_row_groups):
            stats = self._parquet.metadata.row_group(g).column(column).statistics
            bounds.append((stats.min, stats.max) if stats is not None and stats.has_min_max else (-1, 2**31))
        return bounds


def _video_of(row: dict[str, Any], id_column: str) -> Video:
    uris = tuple(row["uris"]) if "uris" in row else (row["uri"],)
    start = row["start_us"] or 0
    end = row["end_us"] if row["end_us"] is not None else row.get("duration_us", 0)
    return Video(
        video_id=row[id_column],
        uri=uris[0] if uris else "",
        start_us=start,
        end_us=end,
        num_clips=row["clips"],
        unreadable=row.get("unreadable"),
        uris=uris,
        id_method=row.get("id_method", "auto"),
    )
