"""`ShardStore`: plan, pending, commit. The data file is the commit, and the whole truth of its shard.

    <out>/<name>-<fingerprint[:12]>/
      spec.json              what the store holds, and who made it
      plan/g0001.parquet     one row a video; one file a generation
      data/g0001-000042.parquet
      quarantine/            derived from the footers
      tombstones/            ids that must not be served or computed again
      tmp/                   files under way, swept by age

There is no commit log: what is done is what is listed under ``data/``. Reading, verifying and mending a store
live in the modules beside this one.
"""

from __future__ import annotations

import io
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import StoreFiles
from pipeline.store.footer import FOOTER_KEY, ShardFooter, footer_of
from pipeline.store.kinds import KINDS, StoreKind
from pipeline.store.plan_files import PlanFile, PlanHeader, encode_plan, list_generations, plan_name
from schemas.errors import CorruptStoreError, SpecMismatchError, StoreError
from schemas.shard import Shard, ShardKey, ShardResult

SPEC_FILE = "spec.json"
DATA_FOLDER = "data"
TOMBSTONES_FOLDER = "tombstones"
STORE_VERSION = 1
_READERS = 8


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


def library_versions() -> dict[str, str]:
    """Versions of what can move numbers, for footers; only of libraries that are already imported."""
    import sys

    names = ("numpy", "pyarrow", "torch", "av")
    found = {n: str(getattr(sys.modules[n], "__version__", "?")) for n in names if n in sys.modules}
    return {"python": platform.python_version(), **found}


def data_name(key: ShardKey) -> str:
    return f"{DATA_FOLDER}/{key}.parquet"


def encode_shard(table: pa.Table, footer: ShardFooter) -> bytes:
    """Parquet bytes of one data file: zstd, no dictionary, statistics on the key columns alone."""
    sink = io.BytesIO()
    table = table.replace_schema_metadata({FOOTER_KEY: footer.to_json()})
    columns = [c for c in KINDS[footer.kind].sort_columns if c in table.column_names]
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=columns)
    return sink.getvalue()


class ShardStore:
    """A store on disk or on an object store. Holds no state that is not there."""

    def __init__(self, files: StoreFiles, document: StoreDocument) -> None:
        self.files, self.document = files, document
        self._plans: dict[int, PlanFile] = {}

    @classmethod
    def create(
        cls, out: str, *, kind: StoreKind, name: str, fingerprint: str, spec: Mapping[str, Any]
    ) -> ShardStore:
        """Make the store of this name and fingerprint under the folder ``out``, or open it where it is there.

        Raises
        ------
        SpecMismatchError
            If a store of another fingerprint or kind has taken the name.
        """
        files = StoreFiles(f"{out.rstrip('/') or '/'}/{name}-{fingerprint[:12]}")
        if not files.exists(SPEC_FILE):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            made = StoreDocument(kind.name, name, fingerprint, dict(spec), library_versions(), now)
            files.put_new(SPEC_FILE, json.dumps(made.__dict__, indent=2, sort_keys=True).encode())
        store = cls.open(files.url)
        if (store.document.fingerprint, store.document.kind) != (fingerprint, kind.name):
            raise SpecMismatchError(
                f"{files.url} holds {store.document.kind} of fingerprint {store.document.fingerprint}, not "
                f"{kind.name} of {fingerprint}: choose another --name or -o"
            )
        return store

    @classmethod
    def open(cls, url: str) -> ShardStore:
        """Open a store that exists.

        Raises
        ------
        StoreError
            If there is none.
        CorruptStoreError
            If its ``spec.json`` cannot be read, or a later version of Locum wrote it.
        """
        files = StoreFiles(url)
        try:
            body = json.loads(files.read(SPEC_FILE))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"no store at {files.url}: there is no {SPEC_FILE} in it") from None
        except ValueError as e:
            raise CorruptStoreError(f"{files.url}/{SPEC_FILE}: {e}") from e
        if not isinstance(body, dict) or body.get("store_version") != STORE_VERSION:
            raise CorruptStoreError(f"{files.url}/{SPEC_FILE}: not of store version {STORE_VERSION}")
        try:
            document = StoreDocument(**body)
        except TypeError as e:
            raise CorruptStoreError(f"{files.url}/{SPEC_FILE}: {e}") from e
        if document.kind not in KINDS:
            raise CorruptStoreError(f"{files.url}/{SPEC_FILE}: unknown kind {document.kind!r}")
        return cls(files, document)

    @staticmethod
    def is_store(url: str) -> bool:
        return StoreFiles(url).exists(SPEC_FILE)

    @property
    def url(self) -> str:
        return self.files.url

    @property
    def kind(self) -> StoreKind:
        return KINDS[self.document.kind]

    # ---------------------------------------------------------------- plan

    def generations(self) -> list[int]:
        return list_generations(self.files)

    def plan(self, generation: int) -> PlanFile:
        if generation not in self._plans:
            self._plans[generation] = PlanFile(self.files, self.kind, generation)
        return self._plans[generation]

    def plans(self) -> list[PlanFile]:
        return [self.plan(g) for g in self.generations()]

    def add_plan(
        self, batches: Iterable[pa.RecordBatch], *, reopens: bool = False, notes: Mapping[str, Any] | None = None
    ) -> PlanFile | None:
        """Write the next generation. None where another process wrote that generation first: plan again on top."""
        generation = len(self.generations()) + 1
        header = PlanHeader(generation, 0, 0, 0, reopens, dict(notes or {}))
        if not self.files.put_new(plan_name(generation), encode_plan(batches, self.kind, header)):
            return None
        return self.plan(generation)

    def committed(self) -> set[ShardKey]:
        """Keys of all data files: one listing."""
        names = self.files.list(DATA_FOLDER)
        return {key for n in names if n.endswith(".parquet") and (key := ShardKey.parse(n[: -len(".parquet")]))}

    def pending(self) -> list[ShardKey]:
        """Keys that are planned and not committed, in plan order."""
        done = self.committed()
        return [key for plan in self.plans() for key in plan.keys() if key not in done]

    def is_committed(self, key: ShardKey) -> bool:
        return self.files.exists(data_name(key))

    def shard(self, key: ShardKey) -> Shard:
        """The videos of a shard, without those that were removed or that a later generation took over."""
        shard = self.plan(key.generation).shard(key)
        gone = self.tombstones() | self.reopened_after(key.generation)
        return Shard(key, tuple(v for v in shard.videos if v.video_id not in gone))

    # ---------------------------------------------------------------- what no longer counts

    def tombstones(self) -> frozenset[str]:
        """Ids that must not be served or computed again."""
        ids: set[str] = set()
        for name in self.files.list(TOMBSTONES_FOLDER):
            body = json.loads(self.files.read(f"{TOMBSTONES_FOLDER}/{name}"))
            ids.update(body["ids"])
        return frozenset(ids)

    def reopened_after(self, generation: int) -> frozenset[str]:
        """Ids of this generation that a later one computes anew."""
        ids: set[str] = set()
        for plan in self.plans():
            if plan.generation > generation and plan.header.reopens:
                for batch in plan.batches([self.kind.id_column]):
                    ids.update(batch.column(0).to_pylist())
        return frozenset(ids)

    # ---------------------------------------------------------------- commit and footers

    def commit(self, shard: Shard, result: ShardResult) -> bool:
        """Write a shard's rows, whole and once. False where another writer was first (its file stands).

        Raises
        ------
        StoreError
            If the result is not the shard's: a row of a stranger, a row too many, one unaccounted for. A bug of
            the task; nothing is written.
        """
        plan = self.plan(shard.key.generation)
        planned = plan.rows(shard.key.number, [self.kind.id_column, "clips"])
        all_ids = dict(zip(planned[self.kind.id_column].to_pylist(), planned["clips"].to_pylist(), strict=True))
        removed = self.tombstones() & all_ids.keys()
        reopened = self.reopened_after(shard.key.generation) & all_ids.keys() - removed
        gone = removed | reopened
        table = without_ids(result.table, self.kind.id_column, gone)
        failures = tuple(f for f in result.failures if f.video_id not in gone)
        _check_accounts(shard.key, {i: n for i, n in all_ids.items() if i not in gone}, table, failures, self.kind)
        footer = ShardFooter(
            key=shard.key,
            kind=self.kind.name,
            fingerprint=self.document.fingerprint,
            plan_hash=plan.digest,
            planned=sum(all_ids.values()),
            rows=table.num_rows,
            tombstoned=sum(all_ids[i] for i in removed),
            reopened=sum(all_ids[i] for i in reopened),
            failures=failures,
            seconds={k: round(v, 4) for k, v in result.seconds.items()},
            versions=library_versions(),
            written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        table = table.sort_by([(c, "ascending") for c in self.kind.sort_columns])
        return self.files.put_new(data_name(shard.key), encode_shard(table, footer))

    def open_data(self, key: ShardKey) -> tuple[pq.ParquetFile, ShardFooter]:
        """An open data file and its footer. Raises CorruptStoreError where it is not a whole Parquet file."""
        where = f"{self.url}/{data_name(key)}"
        try:
            if self.files.is_local:
                parquet = pq.ParquetFile(self.files.at(data_name(key)))
            else:
                parquet = pq.ParquetFile(self.files.open(data_name(key)), pre_buffer=True)
        except pa.ArrowInvalid as e:
            raise CorruptStoreError(f"{where}: {e}") from e
        return parquet, footer_of(parquet, where)

    def footers(self) -> Iterator[ShardFooter]:
        """Footers of all data files, in key order."""

        def one(key: ShardKey) -> ShardFooter:
            parquet, footer = self.open_data(key)
            parquet.close(force=True)
            return footer

        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(one, sorted(self.committed()))


def without_ids(table: pa.Table, column: str, ids: Iterable[str]) -> pa.Table:
    """``table`` less the rows whose ``column`` is one of ``ids``."""
    gone = sorted(ids)
    if not gone or not table.num_rows:
        return table
    return table.filter(pc.invert(pc.is_in(table[column], value_set=pa.array(gone, table[column].type))))


def _check_accounts(
    key: ShardKey, planned: Mapping[str, int], table: pa.Table, failures: Iterable[Any], kind: StoreKind
) -> None:
    rows = Counter(table[kind.id_column].to_pylist())
    missing: Counter[str] = Counter()
    for failure in failures:
        missing[failure.video_id] += failure.missing_rows
    strangers = (rows.keys() | missing.keys()) - planned.keys()
    wrong = [
        f"{i}: {n} planned, {rows[i]} rows, {missing[i]} missing" for i, n in planned.items() if rows[i] + missing[i] != n
    ]
    if strangers or wrong:
        raise StoreError(f"shard {key} does not add up: strangers {sorted(strangers)[:3]}, accounts {wrong[:3]}")
    keys = table.select(list(kind.sort_columns))
    if keys.num_rows and keys.group_by(list(kind.sort_columns)).aggregate([]).num_rows != keys.num_rows:
        raise StoreError(f"shard {key} has a row twice")
