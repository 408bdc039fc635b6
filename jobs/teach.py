"""Teach: index the videos, plan what is new, run the teacher over it, and commit shard by shard.

    index  ->  catalogue  ->  next generation of the plan  ->  run what is pending

Every step is resumable, so running the same call again after any interruption does what is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from jobs.index import IndexReport, catalog, index
from pipeline.local_runner import LocalRunner
from pipeline.models.resolve import resolve_targets
from pipeline.replan import NextGeneration, known_videos, next_generation
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.split_leaks import check_splits
from pipeline.store.kinds import TARGETS
from pipeline.store.mend import retry
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.teach import TeachTask
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import RetryableError
from schemas.shard import SUPERSEDED
from schemas.targets import TargetSpec


@dataclass(frozen=True)
class TeachOptions:
    """How to run; none of these changes a number in the store (batch size: beyond rounding)."""

    name: str = "targets"
    limit: int | None = None
    batch_size: int = 8
    device: str = "auto"
    compile: bool = False
    num_threads: int | None = None
    shard_clips: int | None = None
    max_attempts: int = 3
    settings: RunSettings = field(default_factory=RunSettings)

    def task(self, spec: TargetSpec) -> TeachTask:
        return TeachTask(spec, self.batch_size, self.device, self.compile, self.num_threads)


@dataclass(frozen=True)
class TeachReport:
    """What a call did and where it stands."""

    store: ShardStore
    index: IndexReport
    added: NextGeneration
    summary: RunSummary
    counts: StoreCounts

    @property
    def complete(self) -> bool:
        """Everything that the source names is probed, and every planned clip is there or accounted for."""
        return self.counts.complete and not self.index.pending_shards

    def to_json(self) -> dict[str, Any]:
        s = self.summary
        return {
            "store": self.store.url,
            "index": self.index.store.url,
            "fingerprint": self.store.document.fingerprint,
            "complete": self.complete,
            "videos": self.counts.videos,
            "planned": self.counts.planned,
            "rows": self.counts.rows,
            "quarantined_rows": self.counts.quarantined_rows,
            "quarantined_videos": self.counts.quarantined_videos,
            "tombstoned_rows": self.counts.tombstoned_rows,
            "pending_shards": self.counts.pending_shards,
            "pending_index_shards": self.index.pending_shards,
            "this_run": {
                "new_videos": self.added.new_videos,
                "amended": self.added.amended,
                "superseded": self.added.superseded,
                "shards": s.shards,
                "rows": s.rows,
                "seconds": round(s.seconds, 3),
                "clips_per_second": round(s.rows / s.seconds, 3) if s.seconds else 0.0,
                "seconds_by_stage": {k: round(v, 3) for k, v in s.seconds_by_stage.items()},
                "lost_races": s.lost_races,
                "failed_shards": {str(k): v for k, v in s.failed_shards.items()},
                "out_of_time": s.out_of_time,
            },
        }


def teach(
    source: str,
    out: str,
    spec: TargetSpec,
    options: TeachOptions = TeachOptions(),
    *,
    runner: Runner | None = None,
    on_index_progress: OnProgress | None = None,
    on_progress: OnProgress | None = None,
) -> TeachReport:
    """Cache the teacher's targets for the videos of ``source`` under ``out``, by ``runner`` (this process if none).

    Raises
    ------
    SettingsError
        If the source or the teacher is not as said; nothing was computed.
    CircuitOpenError, RetryableError
        If the run cannot go on now; what was committed stands.
    """
    started = time.monotonic()
    spec = resolve_targets(spec)
    decoder_for(spec.decode)  # a decoder that is not installed is found before the videos are
    indexed = index(
        source,
        out,
        limit=options.limit,
        settings=options.settings,
        runner=runner,
        on_progress=on_index_progress,
    )
    store = open_targets(out, options.name, spec)
    added = add_videos(store, catalog(indexed.store, indexed.entries), spec, options.shard_clips, source)
    runner = runner or LocalRunner(lambda: LocalFrameSource(max_attempts=options.max_attempts))
    settings = options.settings.less(time.monotonic() - started)
    summary = runner.run(options.task(spec), store, settings, on_progress)
    if summary.shards or summary.lost_races:
        write_quarantine(store)
    return TeachReport(store, indexed, added, summary, count(store))


def open_targets(out: str, name: str, spec: TargetSpec) -> ShardStore:
    """The target store of a resolved spec under ``out``, made where it is not there."""
    body = spec.model_dump(mode="json")
    body["teacher"]["weights"] = without_secrets(spec.teacher.weights)
    return ShardStore.create(out, kind=TARGETS, name=name, fingerprint=spec.fingerprint(), spec=body)


def without_secrets(url: str | None) -> str | None:
    """A URL less its user, password and query (signatures); the SHA-256 says which weights were meant."""
    if url is None or "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def add_videos(
    store: ShardStore, videos: pa.Table, spec: TargetSpec, shard_clips: int | None, source: str
) -> NextGeneration:
    """Plan what of ``videos`` is new to the store.

    Raises
    ------
    ManifestError
        If a group would span two splits.
    RetryableError
        If other processes keep planning at the same moment.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        yield from videos.to_batches(max_chunksize=16384)

    for _ in range(8):
        known = known_videos(store)
        check_splits(known, batches)
        added = next_generation(
            batches,
            spec.clip,
            known=known,
            removed=store.tombstones(),
            shard_clips=shard_clips,
        )
        if added.is_empty:
            return added
        notes = {"source": without_secrets(source)}
        if store.add_plan(added.rows(), notes=notes, after=known.generations) is not None:
            if added.amended:
                retry(store, stage=SUPERSEDED)  # of videos whose bytes are back
            return added
    raise RetryableError(f"{store.url}: other processes keep adding generations; run again")
