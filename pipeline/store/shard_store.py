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

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.store.data_files import (
    DATA_FOLDER,
    ShardData,
    check_accounts,
    data_name,
    encode_shard,
    key_of,
    read_data,
    read_footer,
)
from pipeline.store.document import SPEC_FILE, StoreDocument, library_versions, now
from pipeline.store.files import StoreFiles
from pipeline.store.footer import ShardFooter
from pipeline.store.in_force import Amendments, InForce, amendments, reopened_by_generation, without_ids
from pipeline.store.kinds import KINDS, StoreKind
from pipeline.store.plan_files import PlanFile, PlanHeader, encode_plan, list_generations, plan_name
from pipeline.uris import scrubbed
from schemas.errors import CorruptStoreError, SpecMismatchError, StoreError
from schemas.shard import SUPERSEDED, Failure, Shard, ShardKey, ShardResult
from schemas.video import Video

TOMBSTONES_FOLDER = "tombstones"
_READERS = 8


@dataclass(frozen=True)
class Stamp:
    """Who writes a data file, and when what it holds was computed."""

    writer: str
    at: str

    @classmethod
    def of_now(cls) -> Stamp:
        return cls(uuid.uuid4().hex, now())


class ShardStore:
    """A store on disk or on an object store. What it keeps in memory are copies of files that never change, and footers
    of data files, which are read again where a listing shows another version."""

    def __init__(self, files: StoreFiles, document: StoreDocument) -> None:
        self.files, self.document = files, document
        self._plans: dict[int, PlanFile] = {}
        self._seen: int | None = None  # generations at the last listing
        self._tombstones: dict[str, frozenset[str]] = {}
        self._amendments: tuple[int, Amendments] = (1, Amendments())
        self._footers: dict[ShardKey, tuple[str, ShardFooter]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardStore, (self.files, self.document))

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
        files = StoreFiles.below(out, f"{name}-{fingerprint[:12]}")
        if not files.exists(SPEC_FILE):
            made = StoreDocument(kind.name, name, fingerprint, dict(spec), library_versions(), now())
            files.put_new(SPEC_FILE, made.to_json())
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
            document = StoreDocument.from_json(files.read(SPEC_FILE), f"{files.url}/{SPEC_FILE}")
        except FileNotFoundError:
            raise StoreError(f"no store at {files.url}: there is no {SPEC_FILE} in it") from None
        return cls(files, document)

    def reword(self, spec: Mapping[str, Any]) -> None:
        """Replace what ``spec.json`` says of the store; the fingerprint, and what it stands for, stay."""
        document = replace(self.document, spec=dict(spec))
        self.files.put_over(SPEC_FILE, document.to_json())
        self.document = document

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
        """Raises StoreError where there is no such generation."""
        if generation not in self._plans:
            self._plans[generation] = PlanFile(self.files, self.kind, generation)
        return self._plans[generation]

    def plans(self) -> list[PlanFile]:
        """All generations, in order. What is added next is added on top of what this call last returned."""
        generations = self.generations()
        self._seen = len(generations)
        return [self.plan(g) for g in generations]

    def add_plan(
        self,
        batches: Iterable[pa.RecordBatch],
        *,
        reopens: bool = False,
        notes: Mapping[str, Any] | None = None,
        after: int | None = None,
    ) -> PlanFile | None:
        """Write the next generation. None where another process was first with one: plan again on top.

        ``after`` is the last generation that was known when the rows were chosen; where not given, the last
        one that `plans` returned on this handle. The new one is the next, so what was chosen on old knowledge
        is refused.
        """
        if after is None:
            after = self._seen if self._seen is not None else len(self.generations())
        header = PlanHeader(after + 1, 0, 0, 0, reopens, dict(notes or {}))
        if not self.files.put_new(plan_name(after + 1), encode_plan(batches, self.kind, header)):
            return None
        self._seen = after + 1
        return self.plan(after + 1)

    def committed(self) -> set[ShardKey]:
        """Keys of all data files: one listing."""
        return {key for name in self.files.list(DATA_FOLDER) if (key := key_of(name))}

    def pending(self) -> list[ShardKey]:
        """Keys that are planned and not committed, in plan order."""
        done = self.committed()
        return [key for plan in self.plans() for key in plan.shard_keys() if key not in done]

    def is_committed(self, key: ShardKey) -> bool:
        return self.files.exists(data_name(key))

    def shard(self, key: ShardKey, in_force: InForce | None = None) -> Shard:
        """The videos of a shard at the URIs that are in force, without those that no longer count.

        ``in_force`` is what counts, where the caller knows; else it is looked up, which takes two listings.
        """
        planned = self.plan(key.generation).shard(key).videos
        in_force = self.in_force() if in_force is None else in_force
        gone = in_force.gone(key.generation, {v.video_id for v in planned})
        return Shard(
            key, tuple(_as_amended(v, in_force.amendments) for v in planned if v.video_id not in gone)
        )

    # ---------------------------------------------------------------- what no longer counts

    def in_force(self) -> InForce:
        """What counts now: two listings, and the files in them that this handle has not read yet."""
        plans = self.plans()
        if self._amendments[0] != len(plans):
            self._amendments = (len(plans), amendments(plans))
        return InForce(self.tombstones(), reopened_by_generation(plans), self._amendments[1])

    def tombstones(self) -> frozenset[str]:
        """Ids that must not be served or computed again."""
        names = self.files.list(TOMBSTONES_FOLDER)
        for name in names:
            if name not in self._tombstones:
                self._tombstones[name] = self._read_tombstone(f"{TOMBSTONES_FOLDER}/{name}")
        return frozenset().union(*(self._tombstones[n] for n in names))

    def reopened_after(self, generation: int) -> frozenset[str]:
        """Ids of this generation that a later one computes anew."""
        return reopened_by_generation(self.plans()).get(generation, frozenset())

    def _read_tombstone(self, rel: str) -> frozenset[str]:
        try:
            return frozenset(json.loads(self.files.read(rel))["ids"])
        except (ValueError, KeyError, TypeError) as e:
            raise CorruptStoreError(f"{self.url}/{rel}: not a tombstone: {e}") from e

    # ---------------------------------------------------------------- commit and footers

    def commit(self, shard: Shard, result: ShardResult, stamp: Stamp | None = None) -> bool:
        """Write a shard's rows, whole and once. False where another writer was first (its file stands).

        A ``stamp`` that is given again makes the same file, so that a writer whose first attempt was stored, and the
        answer to it lost, finds its own.

        Raises
        ------
        StoreError
            If the result is not the shard's: a row of a stranger, a row too many, one unaccounted for. A bug
            of the task; nothing is written.
        """
        key = shard.key
        plan = self.plan(key.generation)
        if not 0 <= key.number < plan.header.shards:
            raise StoreError(
                f"{self.url} has no shard {key}: generation {key.generation} has {plan.header.shards}"
            )
        clips = plan.clips(key.number)
        removed, reopened = self.in_force().split(key.generation, clips)
        gone = removed | reopened
        stamp = stamp or Stamp.of_now()
        table = without_ids(result.table, self.kind.id_column, gone)
        failures = tuple(
            replace(f, message=scrubbed(f.message)) for f in result.failures if f.video_id not in gone
        )
        check_accounts(key, {i: n for i, n in clips.items() if i not in gone}, table, failures, self.kind)
        footer = ShardFooter(
            key=key,
            kind=self.kind.name,
            fingerprint=self.document.fingerprint,
            plan_hash=plan.digest,
            planned=sum(clips.values()),
            rows=table.num_rows,
            tombstoned=sum(clips[i] for i in removed),
            reopened=sum(clips[i] for i in reopened),
            failures=failures,
            seconds={k: round(v, 4) for k, v in result.seconds.items()},
            versions=library_versions(),
            written_at=stamp.at,
            writer=stamp.writer,
        )
        table = table.sort_by([(c, "ascending") for c in self.kind.sort_columns])
        return self.files.put_new(data_name(key), encode_shard(table, footer))

    def read_data(
        self, key: ShardKey, columns: Sequence[str] | None = None, *, checksums: bool = False
    ) -> ShardData:
        """What a data file holds, all of one moment. Raises CorruptStoreError where it is damaged."""
        return read_data(self.files, key, columns, checksums=checksums)

    def footers(self) -> Iterator[ShardFooter]:
        """Footers of all data files, in key order. A file that is as it was when this handle read it last is not read
        again."""
        marks = {key: mark for name, mark in self.files.marks(DATA_FOLDER).items() if (key := key_of(name))}
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda key: self._footer(key, marks[key]), sorted(marks))

    def _footer(self, key: ShardKey, mark: str | None) -> ShardFooter:
        known = self._footers.get(key)
        if known is not None and known[0] == mark:
            return known[1]
        footer = read_footer(self.files, key)
        if mark is not None:
            self._footers[key] = (mark, footer)
        return footer


def _as_amended(video: Video, amended: Amendments) -> Video:
    """A video as it is to be read now: where it moved to, or unreadable where nothing holds its bytes."""
    if video.video_id in amended.superseded:
        message = "every URI of it now holds other bytes"
        failure = Failure(
            video.video_id, video.uri, SUPERSEDED, "Superseded", message, False, 0, video.num_clips
        )
        return replace(video, unreadable=json.dumps(failure.to_json()))
    about = amended.metadata.get(video.video_id)
    return video if about is None else replace(video, uri=about.uris[0], uris=about.uris)
