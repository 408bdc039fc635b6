"""``spec.json``: what a store holds, and who made it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.store.kinds import KINDS
from schemas.errors import CorruptStoreError

SPEC_FILE = "spec.json"
STORE_VERSION = 1


@dataclass(frozen=True)
class StoreDocument:
    """Content of ``spec.json``."""

    kind: str
    name: str
    fingerprint: str
    spec: Mapping[str, Any]
    made_by: Mapping[str, str]
    created_at: str
    store_version: int = STORE_VERSION

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> StoreDocument:
        """Parse. Raises CorruptStoreError where it is damaged, or a later version of Locum wrote it."""
        try:
            body = json.loads(data)
        except ValueError as e:
            raise CorruptStoreError(f"{where}: {e}") from e
        if not isinstance(body, dict) or body.get("store_version") != STORE_VERSION:
            raise CorruptStoreError(f"{where}: not of store version {STORE_VERSION}")
        try:
            document = cls(**body)
        except TypeError as e:
            raise CorruptStoreError(f"{where}: {e}") from e
        if document.kind not in KINDS:
            raise CorruptStoreError(f"{where}: unknown kind {document.kind!r}")
        return document


def library_versions() -> dict[str, str]:
    """Versions of what can move numbers, for footers; only of libraries that are already imported."""
    names = ("numpy", "pyarrow", "torch", "av")
    found = {n: str(getattr(sys.modules[n], "__version__", "?")) for n in names if n in sys.modules}
    return {"python": platform.python_version(), **found}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
