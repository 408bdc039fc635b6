"""The footer of a data file: all there is to say of its shard, beside the rows. JSON, under ``locum``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow.parquet as pq

from schemas.errors import CorruptStoreError
from schemas.shard import Failure, ShardKey

FOOTER_KEY = b"locum"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ShardFooter:
    """What a data file says of its shard.

    For each shard ``rows + missing + tombstoned + reopened == planned``: rows that are here, rows of
    quarantined clips, rows of removed videos, rows of videos that a later generation computes anew.
    """

    key: ShardKey
    kind: str
    fingerprint: str
    plan_hash: str
    planned: int
    rows: int
    tombstoned: int = 0
    reopened: int = 0
    failures: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    written_at: str = ""
    writer: str = ""  # drawn at random: no two writers make the same file

    @property
    def missing(self) -> int:
        return sum(f.missing_rows for f in self.failures)

    @property
    def balanced(self) -> bool:
        return self.rows + self.missing + self.tombstoned + self.reopened == self.planned

    def to_json(self) -> bytes:
        body = asdict(replace(self, failures=()))
        body["key"] = str(self.key)
        body["failures"] = [f.to_json() for f in self.failures]
        body["schema_version"] = SCHEMA_VERSION
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> ShardFooter:
        """Parse. Raises CorruptStoreError, naming the file, where it is not one of ours."""
        try:
            body: dict[str, Any] = json.loads(data)
            version = body.pop("schema_version")
            key = ShardKey.parse(body.pop("key"))
            if version != SCHEMA_VERSION or key is None:
                raise CorruptStoreError(
                    f"{where}: footer of schema version {version!r}, this is {SCHEMA_VERSION}"
                )
            failures = tuple(Failure.from_json(f) for f in body.pop("failures"))
            return cls(key=key, failures=failures, **body)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise CorruptStoreError(f"{where}: its footer cannot be read: {e}") from e


def footer_of(parquet: pq.ParquetFile, where: str) -> ShardFooter:
    """The footer of an open Parquet file."""
    metadata = parquet.schema_arrow.metadata or {}
    if FOOTER_KEY not in metadata:
        raise CorruptStoreError(f"{where}: no Locum footer; it was not written by Locum")
    return ShardFooter.from_json(metadata[FOOTER_KEY], where)
