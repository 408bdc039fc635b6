"""Frames: keep a small view of every clip of a target store, in a store of its own, so that training reads Parquet
only.

The frame store plans the videos that the target store serves, as a target store plans those of a catalogue: what is new
there is new here, what was removed there is removed here. Rows of both are joined by their key. The teacher is not run.

Or both at once, of one decoding (`beside`): the frame store then has the very shards of the targets.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.planning import add_videos
from pipeline.known import id_array, known_videos, videos_in_force
from pipeline.local_runner import LocalRunner
from pipeline.plan import video_clips
from pipeline.replan import NextGeneration
from pipeline.runner import OnProgress, Runner, RunSettings, RunSummary
from pipeline.store.kinds import FRAMES, TARGETS
from pipeline.store.mend import remove
from pipeline.store.paired import PairedStore
from pipeline.store.plan_files import PlanFile
from pipeline.store.read import write_quarantine
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import StoreCounts, count
from pipeline.tasks.keep_frames import KeepFramesTask
from pipeline.video.backends import decoder_for
from pipeline.video.frame_source import LocalFrameSource
from schemas.errors import SettingsError
from schemas.frames import FrameSpec, KeepSpec
from schemas.shard import Failure
from schemas.targets import TargetSpec

_BYTES_A_PIXEL = ((75, 0.5), (92, 1.2), (100, 2.5))
"""Of a JPEG of film grain, up to each quality: plain pictures take a third of it."""
_SHARD_BYTES = 64 << 20
_VIDEO_BYTES = 1 << 30
_SHARDS_OF = "shards_of"
"""Note of a plan that was given here: the digest of the targets' plan that it repeats."""


@dataclass(frozen=True)
class FramesOptions:
    """How to run; none of these changes a byte in the store."""

    name: str = "frames"
    max_attempts: int = 3
    settings: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class FramesReport:
    """What a call did and where it stands."""

    store: ShardStore
    targets: ShardStore
    added: NextGeneration
    removed_videos: int
    summary: RunSummary
    counts: StoreCounts

    @property
    def complete(self) -> bool:
        return self.counts.complete

    @property
    def bytes_per_clip(self) -> float:
        return self.counts.data_bytes / self.counts.rows if self.counts.rows else 0.0

    def to_json(self) -> dict[str, Any]:
        c = self.counts
        return {
            "store": self.store.url,
            "targets": self.targets.url,
            "fingerprint": self.store.document.fingerprint,
            "complete": self.complete,
            "videos": c.videos,
            "planned": c.planned,
            "rows": c.rows,
            "quarantined_rows": c.quarantined_rows,
            "quarantined_videos": c.quarantined_videos,
            "tombstoned_rows": c.tombstoned_rows,
            "pending_shards": c.pending_shards,
            "data_bytes": c.data_bytes,
            "bytes_per_clip": round(self.bytes_per_clip, 1),
            "this_run": {
                "new_videos": self.added.new_videos,
                "removed_videos": self.removed_videos,
                **self.summary.to_json(),
            },
        }


def keep_frames(
    targets: str,
    out: str | None = None,
    keep: KeepSpec = KeepSpec(),
    options: FramesOptions = FramesOptions(),
    *,
    runner: Runner | None = None,
    on_progress: OnProgress | None = None,
) -> FramesReport:
    """Keep frames of the clips of the store ``targets`` under ``out`` (beside it, if not said).

    Raises
    ------
    SettingsError
        If ``targets`` is not a target store.
    CircuitOpenError, RetryableError
        If the run cannot go on now; what was committed stands.
    """
    source = ShardStore.open(targets)
    if source.kind != TARGETS:
        raise SettingsError(f"{source.url} is a store of {source.kind.name}: one of targets is wanted")
    spec = FrameSpec.of(TargetSpec(**source.document.spec), keep)
    decoder_for(spec.decode)
    store = _open_frames(source, out, spec, options)
    clip_bytes = most_bytes(spec)
    removed = take_over_removals(source, store)
    videos = without_words(videos_in_force(source))
    videos = without_endless(videos, spec, _VIDEO_BYTES // clip_bytes)
    most = max(1, _SHARD_BYTES // clip_bytes)
    added = add_videos(store, videos, spec.clip, notes={"targets": source.url}, most_shard_clips=most)
    runner = runner or LocalRunner(lambda: LocalFrameSource(max_attempts=options.max_attempts))
    summary = runner.run(KeepFramesTask(spec), store, options.settings, on_progress)
    if summary.shards or summary.lost_races:
        write_quarantine(store)
    return FramesReport(store, source, added, removed, summary, count(store))


def beside(
    targets: ShardStore, keep: KeepSpec, out: str | None = None, options: FramesOptions = FramesOptions()
) -> PairedStore:
    """``targets`` for a run whose task keeps frames (`TeachTask.keep`): its commits fill the frame store too.

    Takes what is pending in generations of which the frame store knows nothing yet, or which it was given here before.
    `keep_frames` does what is left afterwards.
    """
    taught = TargetSpec(**targets.document.spec)
    spec = FrameSpec.of(taught, keep)
    store = _open_frames(targets, out, spec, options)
    if spec.decode != taught.decode:
        return PairedStore(targets, store, {})
    take_over_removals(targets, store)
    given = {plan.header.notes.get(_SHARDS_OF): plan.generation for plan in store.plans()}
    generations: dict[int, int] = {}
    for generation in sorted({key.generation for key in targets.pending()}):
        plan = targets.plan(generation)
        twin = given.get(plan.digest) or _give_plan(store, plan, targets.url, most_bytes(spec))
        if twin is not None:
            generations[generation] = twin
    return PairedStore(targets, store, generations)


def _give_plan(store: ShardStore, plan: PlanFile, source: str, clip_bytes: int) -> int | None:
    """Plan the same shards in ``store``. None where that cannot be, for some of it is known or too large."""
    rows = pa.Table.from_batches(list(plan.batches()), FRAMES.plan_schema)
    rows = rows.filter(pc.greater_equal(rows["shard"], 0))
    if plan.header.reopens or not rows.num_rows:
        return None
    clips_by_shard = np.bincount(rows["shard"].to_numpy(), rows["clips"].to_numpy())
    known = known_videos(store)
    _, found = known.find(id_array(rows["video_id"].to_pylist()))
    if found.any() or clips_by_shard.max() * clip_bytes > _VIDEO_BYTES:
        return None
    batches = without_words(rows).to_batches(max_chunksize=16384)
    given = store.add_plan(
        batches, notes={"targets": source, _SHARDS_OF: plan.digest}, after=known.generations
    )
    return None if given is None else given.generation


def _open_frames(targets: ShardStore, out: str | None, spec: FrameSpec, options: FramesOptions) -> ShardStore:
    return ShardStore.create(
        out or targets.url.rpartition("/")[0],
        kind=FRAMES,
        name=options.name,
        fingerprint=spec.fingerprint(),
        spec=spec.model_dump(mode="json"),
    )


def take_over_removals(source: ShardStore, store: ShardStore) -> int:
    """Remove from ``store`` what was removed from ``source``. Number of videos."""
    new = source.tombstones() - store.tombstones()
    found = _planned_of(store, new)
    if found:
        remove(store, found, f"removed from {source.url}")
    return len(found)


def without_words(videos: pa.Table) -> pa.Table:
    """``videos`` less label, split and group: those are the targets' to say, and several may share the frames."""
    for name in ("label", "split", "group"):
        at = videos.schema.get_field_index(name)
        videos = videos.set_column(at, videos.schema.field(at), pa.nulls(videos.num_rows, pa.string()))
    return videos


def without_endless(videos: pa.Table, spec: FrameSpec, most_clips: int) -> pa.Table:
    """``videos``, those of more than ``most_clips`` clips marked as unreadable: one file must hold a video's frames."""
    batches = []
    for batch in videos.to_batches(max_chunksize=16384):
        clips_N = video_clips(batch, spec.clip)
        said = batch["unreadable"].to_pylist()
        uris = batch["uris"].to_pylist()
        for i in np.flatnonzero(clips_N > most_clips).tolist():
            message = (
                f"{clips_N[i]} clips of {spec.clip.num_frames} frames of {spec.view.width}x{spec.view.height} are more "
                f"than one file should hold ({most_clips}): keep fewer or smaller frames"
            )
            failure = Failure("", uris[i][0], "keep", "TooLong", message, True, 0, 0)
            said[i] = said[i] or json.dumps(failure.to_json())
        at = batch.schema.get_field_index("unreadable")
        batches.append(batch.set_column(at, batch.schema.field(at), pa.array(said, pa.string())))
    return pa.Table.from_batches(batches, videos.schema)


def most_bytes(spec: FrameSpec) -> int:
    """What the kept frames of a clip take, on the large side."""
    of_pixel = next(size for quality, size in _BYTES_A_PIXEL if spec.quality <= quality)
    return max(1, round(spec.clip.num_frames * spec.view.width * spec.view.height * of_pixel))


def _planned_of(store: ShardStore, ids: Collection[str]) -> set[str]:
    names = sorted(ids)
    if not names:
        return set()
    _, found = known_videos(store).find(id_array(names))
    return {name for name, there in zip(names, found.tolist(), strict=True) if there}
