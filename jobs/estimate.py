"""What a teach call would come to, measured on a few videos. Writes nothing."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.frames import most_bytes
from jobs.index import sample_entries
from jobs.words import duration, size
from pipeline.manifest import read_entries
from pipeline.models.resolve import resolve_targets
from pipeline.plan import auto_shard_clips
from pipeline.runner import Runner
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.clip_probe import ClipCosts, probe_clips
from pipeline.tasks.teach import TeachTask
from pipeline.video.backends import decoder_for
from schemas.errors import ManifestError, RetryableError
from schemas.frames import FrameSpec
from schemas.targets import TargetSpec

if TYPE_CHECKING:
    from jobs.teach import TeachOptions

log = logging.getLogger("locum.plan")

_PROBED_VIDEOS = 8
_ROW_OVERHEAD_BYTES = 40


@dataclass(frozen=True)
class Estimate:
    """Numbers of a dry run; ``clips`` and what follows from it are extrapolated from ``probed`` videos."""

    source: str
    fingerprint: str
    videos: int
    video_bytes: int
    missing: int
    probed: int
    unreadable: int
    clips: int
    shards: int
    store_bytes: int
    frames_bytes: int
    decode_ms_a_clip: float
    teacher_ms_a_clip: float
    seconds: float
    batch_size: int
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        kept = f", {size(self.frames_bytes)} of kept frames" if self.frames_bytes else ""
        absent = f", {self.missing} of them not there" if self.missing else ""
        return "\n".join(
            [
                f"{self.videos} entries ({size(self.video_bytes)}){absent}",
                f"about {self.clips} clips in {self.shards} shards, {size(self.store_bytes)} of targets{kept}",
                f"decoding {self.decode_ms_a_clip:.1f} ms and teacher {self.teacher_ms_a_clip:.1f} ms a clip "
                f"(measured on {self.probed} videos, {self.unreadable} of them unreadable)",
                f"about {duration(self.seconds)} in one process of that kind, if nothing is cached yet",
                f"fingerprint {self.fingerprint}; nothing was written",
            ]
        )


def _apart(
    runner: Runner, task: TeachTask, sample: list[dict[str, Any]], batch_size: int | None
) -> ClipCosts | None:
    """What a clip costs where the runner works. A video that takes the process with it is left out, as unreadable."""
    try:
        return runner.try_out(task, partial(probe_clips, videos=sample, batch_size=batch_size), apart=True)
    except RetryableError as e:
        log.warning("a sampled video is to blame, or something else: each is tried alone (%s)", e)
    harmless = [video for video in sample if _is_harmless(runner, task, video)]
    if not harmless:
        return None
    found = runner.try_out(task, partial(probe_clips, videos=harmless, batch_size=batch_size), apart=True)
    left_out = len(sample) - len(harmless)
    return found and replace(found, unreadable=found.unreadable + left_out)


def _is_harmless(runner: Runner, task: TeachTask, video: dict[str, Any]) -> bool:
    try:
        runner.try_out(task, partial(probe_clips, videos=[video], batch_size=1), apart=True)
    except RetryableError:
        return False
    return True


def estimate(source: str, spec: TargetSpec, options: TeachOptions, runner: Runner | None = None) -> Estimate:
    """Probe, decode and teach a few videos of ``source``, and extrapolate: in this process, or where a ``runner`` would
    have it done.

    Decoding and teaching overlap in a run, so the time is that of the slower of both.

    Raises
    ------
    ManifestError
        If nothing is found, or none of the probed videos can be read.
    RetryableError
        If the runner's process ended before it was done.
    """
    if ShardStore.is_store(source):
        from jobs.index import entries_of

        entries = entries_of(ShardStore.open(source))
    else:
        entries = read_entries(source)
    entries = sample_entries(entries, options.limit)
    spec = resolve_targets(spec)
    decoder_for(spec.decode)
    kept = None if options.keep is None else FrameSpec.of(spec, options.keep)
    sample = sample_entries(entries, _PROBED_VIDEOS).select(["uri", "start_us", "end_us"]).to_pylist()
    look = partial(probe_clips, videos=sample, batch_size=options.batch_size)
    task = options.task(spec)
    found = look(task) if runner is None else _apart(runner, task, sample, options.batch_size)
    if found is None:
        raise ManifestError(f"{source}: none of {len(sample)} sampled videos can be read")
    readable = len(found.clips_each) / len(sample)
    clips = round(float(np.mean(found.clips_each)) * entries.num_rows * readable)
    row_bytes = (spec.teacher.num_classes or 0) * (
        2 if spec.logits.dtype == "float16" else 4
    ) + _ROW_OVERHEAD_BYTES
    shard_clips = options.shard_clips or auto_shard_clips(clips, found.batch_size)
    sheet_bytes = 0.0 if kept is None else found.sheet_bytes or most_bytes(kept)
    return Estimate(
        source=source,
        fingerprint=spec.fingerprint(),
        videos=entries.num_rows,
        video_bytes=sum(filter(None, entries["num_bytes"].to_pylist())),
        missing=entries["token"].null_count,
        probed=len(sample),
        unreadable=found.unreadable,
        clips=clips,
        shards=-(-clips // shard_clips),
        store_bytes=clips * row_bytes,
        frames_bytes=round(clips * sheet_bytes),
        decode_ms_a_clip=found.decode_ms,
        teacher_ms_a_clip=found.teacher_ms,
        seconds=clips * max(found.decode_ms, found.teacher_ms) / 1e3,
        batch_size=found.batch_size,
        device=found.device,
    )
