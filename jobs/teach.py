"""Teach: index the videos, plan what is new, run the teacher over it, and commit shard by shard.

    index  ->  catalogue  ->  next generation of the plan  ->  run what is pending

Every step is resumable, so running the same call again after any interruption does what is left.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.frames import FramesOptions, FramesReport, beside, keep_frames
from jobs.index import IndexReport, catalog, index
from jobs.planning import add_videos
from pipeline.local_runner import LocalRunner
from pipeline.models.resolve import resolve_targets
from pipeline.replan import NextGeneration
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.store.kinds import TARGETS
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.teach import DEFAULT_BATCH, TeachTask
from pipeline.uris import without_secrets
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import RetryableError, SpecMismatchError
from schemas.frames import FrameSpec, KeepSpec
from schemas.targets import TargetSpec

log = logging.getLogger("locum.teach")


@dataclass(frozen=True)
class TeachOptions:
    """How to run; none of these changes a number in the store (batch size: beyond rounding).

    ``batch_size`` is that with which the store was begun, where not given, and for a new store the fastest of a short
    probe.
    """

    name: str = "targets"
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    compile: bool = False
    num_threads: int | None = None
    shard_clips: int | None = None
    max_attempts: int = 3
    settings: RunSettings = field(default_factory=RunSettings)
    keep: KeepSpec | None = None
    """Frames that are kept beside, in a store of their own, of the same decoding."""

    def task(self, spec: TargetSpec) -> TeachTask:
        kept = None if self.keep is None else FrameSpec.of(spec, self.keep)
        if kept is not None and kept.decode != spec.decode:
            kept = None  # another decoding, and so another pass
        size = self.batch_size or DEFAULT_BATCH
        return TeachTask(spec, size, self.device, self.compile, self.num_threads, kept)


@dataclass(frozen=True)
class TeachReport:
    """What a call did and where it stands."""

    store: ShardStore
    index: IndexReport
    added: NextGeneration
    summary: RunSummary
    counts: StoreCounts
    batch_size: int
    frames: FramesReport | None = None

    @property
    def complete(self) -> bool:
        """Everything that the source names is probed, and every planned clip is there or accounted for."""
        frames = self.frames is None or self.frames.complete
        return self.counts.complete and not self.index.pending_shards and frames

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store.url,
            "index": self.index.store.url,
            "fingerprint": self.store.document.fingerprint,
            "complete": self.complete,
            "videos": self.counts.videos,
            "planned": self.counts.planned,
            "batch_size": self.batch_size,
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
                **self.summary.to_json(),
            },
            **({} if self.frames is None else {"frames": self.frames.to_json()}),
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
    runner = runner or LocalRunner(lambda: LocalFrameSource(max_attempts=options.max_attempts))
    videos = catalog(indexed.store, indexed.entries)
    batch_size = options.batch_size or begun_with(store)
    if batch_size is None:
        batch_size = _tried_batch(runner, options.task(spec)) if videos.num_rows else DEFAULT_BATCH
    added = add_videos(
        store,
        videos,
        spec.clip,
        notes={"source": without_secrets(source), "batch_size": batch_size},
        shard_clips=options.shard_clips,
        batch_size=batch_size,
    )
    if options.batch_size is None:  # another process may have begun the store meanwhile
        batch_size = begun_with(store) or batch_size
    options = replace(options, batch_size=batch_size)
    settings = options.settings.less(time.monotonic() - started)
    into = store if options.keep is None else beside(store, options.keep)
    summary = runner.run(options.task(spec), into, settings, on_progress)
    if summary.shards or summary.lost_races:
        write_quarantine(store)
    kept = None
    if options.keep is not None:
        left = options.settings.less(time.monotonic() - started)
        rest = FramesOptions(max_attempts=options.max_attempts, settings=left)
        kept = keep_frames(store.url, keep=options.keep, options=rest, runner=runner, on_progress=on_progress)
    return TeachReport(store, indexed, added, summary, count(store), batch_size, kept)


def begun_with(store: ShardStore) -> int | None:
    """The batch size with which a store's first videos were planned; None where there are none."""
    plans = store.plans()
    return int(plans[0].header.notes.get("batch_size", DEFAULT_BATCH)) if plans else None


def _tried_batch(runner: Runner, task: TeachTask) -> int:
    from pipeline.tasks.batch_probe import probe_batch

    try:
        return runner.try_out(task, probe_batch)
    except RetryableError as e:
        log.warning("batches of %d clips, for the best size could not be measured: %s", DEFAULT_BATCH, e)
        return DEFAULT_BATCH


def open_targets(out: str, name: str, spec: TargetSpec) -> ShardStore:
    """The target store of a resolved spec under ``out``, made where it is not there.

    What is said of the teacher and is no part of its fingerprint (names of classes, what it was trained on) is noted in
    a store that is there already.

    Raises
    ------
    SpecMismatchError
        If the store calls the teacher's classes otherwise.
    """
    body = spec.model_dump(mode="json")
    body["teacher"]["weights"] = without_secrets(spec.teacher.weights)
    store = ShardStore.create(out, kind=TARGETS, name=name, fingerprint=spec.fingerprint(), spec=body)
    there = store.document.spec["teacher"]
    said = {word: body["teacher"][word] for word in ("classes", "trained_on") if body["teacher"][word]}
    if there["classes"] and said.get("classes", there["classes"]) != there["classes"]:
        raise SpecMismatchError(
            f"{store.url} calls the teacher's classes {', '.join(there['classes'][:5])}, ..., not "
            f"{', '.join(said['classes'][:5])}, ...: choose another --name or -o"
        )
    if any(there.get(word) != value for word, value in said.items()):
        store.reword({**store.document.spec, "teacher": {**there, **said}})
    return store
