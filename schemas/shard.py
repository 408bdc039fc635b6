"""Shards: the unit of work, retry and commit, and what came of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from schemas.video import Video

SUPERSEDED = "superseded"
"""Stage of a failure that nothing was tried for: when the shard was computed, no URI held the video's bytes."""

_NAME = re.compile(r"g(\d{4,})-(\d{6,})")


@dataclass(frozen=True, slots=True, order=True)
class ShardKey:
    """Name of a shard: the plan generation it belongs to and its number there."""

    generation: int
    number: int

    def __str__(self) -> str:
        return f"g{self.generation:04d}-{self.number:06d}"

    @classmethod
    def parse(cls, text: str) -> ShardKey | None:
        """The key named ``text`` (``g0001-000042``), or None where it is none."""
        match = _NAME.fullmatch(text)
        key = cls(int(match[1]), int(match[2])) if match else None
        return key if key is not None and str(key) == text else None


@dataclass(frozen=True, slots=True)
class Shard:
    """Some whole videos, to be computed and committed together, sorted by ``video_id``."""

    key: ShardKey
    videos: tuple[Video, ...]

    @property
    def num_planned(self) -> int:
        return sum(v.num_clips for v in self.videos)


@dataclass(frozen=True, slots=True)
class Failure:
    """What befell one video. Stands in the footer of its shard's file.

    ``missing_rows`` counts planned rows that will not come; ``damaged_rows`` counts rows that came from
    damaged frames and say so. ``permanent`` tells damage of the file from a passing fault.
    """

    video_id: str
    uri: str
    stage: str
    error: str
    message: str
    permanent: bool
    attempts: int
    missing_rows: int
    damaged_rows: int = 0
    decoder: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Failure:
        return cls(**{name: value[name] for name in cls.__slots__ if name in value})


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a task made of a shard: the rows, the failures, and where the time went (seconds by name).

    ``beside`` holds rows of the same videos for a second store, where the run fills two (`pipeline.store.paired`).
    """

    table: pa.Table
    failures: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    beside: pa.Table | None = None


QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("permanent", pa.bool_(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("missing_rows", pa.int32(), nullable=False),
        pa.field("damaged_rows", pa.int32(), nullable=False),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
    ]
)
"""One failed or damaged video a row; derived from the footers."""
