"""Plan files: one Parquet file a generation, one row a video, rows in shard order.

Written once, if absent, so two adders cannot both be generation 2. The counts that a resume needs stand in
the file's metadata, so listing what is pending reads no rows; a shard's videos are found by row-group
statistics. On a local disk a plan is mapped and read as it is needed; from an object store it is fetched
whole, once a handle.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import StoreFiles
from pipeline.store.kinds import StoreKind
from schemas.errors import CorruptStoreError, StoreError
from schemas.shard import Shard, ShardKey
from schemas.video import Video

PLAN_KEY = b"locum_plan"
PLAN_FOLDER = "plan"
_NAME = re.compile(r"^g(\d{4,})\.parquet$")
_MIN_GROUP_ROWS = 4096
_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class PlanHeader:
    """Counts of one generation.

    ``reopens`` says that its videos were planned before and are computed anew: their rows and failures in
    earlier generations no longer count. ``notes`` holds what made it (the source that was read, …),
    ``writer`` a name drawn at random, so that no two writers make the same file.
    """

    generation: int
    videos: int
    clips: int
    shards: int
    reopens: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    writer: str = ""


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

    Rows should come in shard order: then a shard lies in one row group or two, and reading it reads few rows.
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
            writer.write_table(
                pa.Table.from_batches(held, kind.plan_schema), row_group_size=max(1, held_rows)
            )
        final = replace(header, videos=videos, clips=clips, shards=shards + 1, writer=uuid.uuid4().hex)
        writer.add_key_value_metadata({PLAN_KEY.decode(): json.dumps(asdict(final))})
    return sink.getvalue()


class PlanFile:
    """One generation, open for reading, from several threads if need be."""

    def __init__(self, files: StoreFiles, kind: StoreKind, generation: int) -> None:
        self._kind, self.generation = kind, generation
        self._where = f"{files.url}/{plan_name(generation)}"
        self._lock = threading.Lock()
        self._recent: dict[int, pa.Table] = {}
        try:
            if files.is_local:
                self._source = pa.memory_map(files.at(plan_name(generation)))
            else:
                self._source = pa.BufferReader(files.read(plan_name(generation)))
            self._metadata = pq.read_metadata(self._source)
            body = json.loads((self._metadata.metadata or {})[PLAN_KEY])
            self.header = PlanHeader(**body)
        except FileNotFoundError as e:
            raise StoreError(f"{files.url} has no generation {generation}") from e
        except (pa.ArrowInvalid, KeyError, ValueError, TypeError, OSError) as e:
            raise CorruptStoreError(f"{self._where}: not a plan of Locum: {e}") from e

    @cached_property
    def digest(self) -> str:
        """128-bit BLAKE2b of the plan file; stands in the footer of every data file of this generation."""
        h = hashlib.blake2b(digest_size=16)
        size = self._source.size()
        for at in range(0, size, _HASH_BYTES):
            h.update(self._source.read_at(min(_HASH_BYTES, size - at), at))
        return h.hexdigest()

    @property
    def id_column(self) -> str:
        return self._kind.id_column

    @property
    def has_uris(self) -> bool:
        """Whether its rows name videos by all their URIs, as target stores do, and so can be amended."""
        return "uris" in self._kind.plan_schema.names

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of all its rows. Meant for generations that reopen videos; a first one may hold millions."""
        return frozenset(i for b in self.batches([self.id_column]) for i in b.column(0).to_pylist())

    def shard_keys(self) -> Iterator[ShardKey]:
        return (ShardKey(self.generation, n) for n in range(self.header.shards))

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, in the columns' order asked for; memory does not grow with the plan."""
        yield from self._open().iter_batches(batch_size=16384, columns=columns)

    def rows(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Plan rows of shard ``number``, sorted by id; empty where it has none."""
        groups = [g for g, (low, high) in enumerate(self._group_bounds) if low <= number <= high]
        parts = [self._group(g) for g in groups] or [self._kind.plan_schema.empty_table()]
        table = pa.concat_tables(t.filter(pc.equal(t["shard"], number)) for t in parts)
        if columns is not None:
            table = table.select(list(dict.fromkeys([*columns, self.id_column])))
        return table.sort_by(self.id_column)

    def clips(self, number: int) -> dict[str, int]:
        """Planned clips of each video of shard ``number``, in order of the ids."""
        rows = self.rows(number, ["clips"])
        return dict(zip(rows[self.id_column].to_pylist(), rows["clips"].to_pylist(), strict=True))

    def shard(self, key: ShardKey) -> Shard:
        """The videos of a shard as they were planned."""
        rows = self.rows(key.number).to_pylist()
        return Shard(key, tuple(video_of(row, self.id_column) for row in rows))

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._source, metadata=self._metadata)
        except (pa.ArrowInvalid, OSError) as e:
            raise CorruptStoreError(f"{self._where}: {e}") from e

    def _group(self, group: int) -> pa.Table:
        """Rows of one row group; the last two that were asked for are kept, for shards are read in order."""
        with self._lock:
            if group not in self._recent:
                self._recent = dict([*self._recent.items()][-1:])
                self._recent[group] = self._open().read_row_group(group)
            return self._recent[group]

    @cached_property
    def _group_bounds(self) -> list[tuple[int, int]]:
        column = self._metadata.schema.to_arrow_schema().get_field_index("shard")
        # Nested columns (uris) have one leaf each, so the leaf index equals the field index.
        bounds = []
        for g in range(self._metadata.num_row_groups):
            stats = self._metadata.row_group(g).column(column).statistics
            bounds.append((stats.min, stats.max) if stats is not None and stats.has_min_max else (-1, 2**31))
        return bounds


def video_of(row: Mapping[str, Any], id_column: str) -> Video:
    """The video of a plan row."""
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
        file_id=row.get("file_id") or "",
    )
