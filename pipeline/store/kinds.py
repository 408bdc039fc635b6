"""The kinds of store: which columns name a row, and what a plan row holds beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.frames import FRAMES_SCHEMA
from schemas.labels import LabelSpec
from schemas.targets import TargetSpec
from schemas.video import ENTRIES_SCHEMA, PROBE_SCHEMA, VIDEOS_SCHEMA


@dataclass(frozen=True)
class StoreKind:
    """What tells one kind of store from another.

    ``id_column`` names the planned unit in the plan and in the data; ``sort_columns`` are the key of a data
    row. ``plan_schema`` ends with ``clips`` (rows planned) and ``shard`` (-1 where nothing is to be
    computed). ``data_schema`` gives the schema of the data from the store's spec.

    ``of_clips``: a row is a clip of the spec's ``clip``, a planned unit a video with its label, split and group.
    ``compression`` is Parquet's. With ``group_rows`` the row groups hold whole videos, of that many rows or more,
    so that a part of a file can be read without the rest.
    """

    name: str
    id_column: str
    sort_columns: tuple[str, ...]
    plan_schema: pa.Schema
    data_schema: Callable[[Mapping[str, Any]], pa.Schema]
    of_clips: bool = False
    compression: str = "zstd"
    group_rows: int | None = None


_WORK = [pa.field("clips", pa.int32(), nullable=False), pa.field("shard", pa.int32(), nullable=False)]

VIDEOS = StoreKind(
    "videos",
    "item_id",
    ("item_id",),
    pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("id_method", pa.string(), nullable=False),
            *ENTRIES_SCHEMA,
            *_WORK,
        ]
    ),
    lambda _spec: PROBE_SCHEMA,
)
TARGETS = StoreKind(
    "targets",
    "video_id",
    ("video_id", "start_us"),
    pa.schema([*VIDEOS_SCHEMA, *_WORK]),
    lambda spec: TargetSpec(**spec).table_schema(),
    of_clips=True,
)
FRAMES = StoreKind(
    "frames",
    "video_id",
    ("video_id", "start_us"),
    pa.schema([*VIDEOS_SCHEMA, *_WORK]),
    lambda _spec: FRAMES_SCHEMA,
    of_clips=True,
    compression="none",  # JPEGs are compressed
    group_rows=32,
)
LABELS = StoreKind(
    "labels",
    "video_id",
    ("video_id", "start_us"),
    pa.schema([*VIDEOS_SCHEMA, *_WORK]),
    lambda spec: LabelSpec(**spec).table_schema(),
    of_clips=True,
)

KINDS = {kind.name: kind for kind in (VIDEOS, TARGETS, FRAMES, LABELS)}
