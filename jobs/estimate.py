"""The dry run: what a teach call would come to, measured on a few videos. Writes nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.frames import most_bytes
from jobs.index import sample_entries
from jobs.words import duration, size
from pipeline.manifest import read_entries
from pipeline.models.resolve import resolve_targets
from pipeline.plan import auto_shard_clips
from pipeline.sheets import encode_sheet
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.batch_probe import probe_batch
from pipeline.video.backends import decoder_for
from pipeline.video.probe import probe
from schemas.clip import count_clips
from schemas.errors import ManifestError, VideoError
from schemas.frames import FrameSpec
from schemas.targets import TargetSpec

if TYPE_CHECKING:
    from jobs.teach import TeachOptions

_PROBED_VIDEOS = 8
_CLIPS_A_VIDEO = 4
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        kept = f", {size(self.frames_bytes)} of kept frames" if self.frames_bytes else ""
        absent = f", {self.missing} of them not there" if self.missing else ""
        return "\n".join(
            [
                f"{self.videos} entries ({size(self.video_bytes)}){absent}",
                f"about {self.clips} clips in {self.shards} shards, {size(self.store_bytes)} of targets{kept}",
                f"decoding {self.decode_ms_a_clip:.1f} ms and teacher {self.teacher_ms_a_clip:.1f} ms a clip on this "
                f"machine (measured on {self.probed} videos, {self.unreadable} of them unreadable)",
                f"about {duration(self.seconds)} in one process here, if nothing is cached yet",
                f"fingerprint {self.fingerprint}; nothing was written",
            ]
        )


def estimate(source: str, out: str, spec: TargetSpec, options: TeachOptions) -> Estimate:
    """Probe, decode and teach a few videos of ``source``, and extrapolate.

    Decoding and teaching overlap in a run, so the time is that of the slower of both.

    Raises
    ------
    ManifestError
        If nothing is found, or none of the probed videos can be read.
    """
    if ShardStore.is_store(source):
        from jobs.index import entries_of

        entries = entries_of(ShardStore.open(source))
    else:
        entries = read_entries(source)
    entries = sample_entries(entries, options.limit)
    spec = resolve_targets(spec)
    options = replace(options, compile=False)
    batch_size = options.batch_size or probe_batch(options.task(spec))
    teacher = replace(options, batch_size=batch_size).task(spec).teacher()
    decoder = decoder_for(spec.decode)
    request, kept = (
        options.task(spec).request,
        None if options.keep is None else FrameSpec.of(spec, options.keep),
    )
    also = [stream.view for stream in request.also]
    clips_each, decode_seconds, frames, unreadable = [], 0.0, [], 0
    sheets: list[int] = []
    sample = sample_entries(entries, _PROBED_VIDEOS)
    for row in sample.select(["uri", "start_us", "end_us"]).to_pylist():
        uri = row["uri"]
        try:
            length = probe(uri).duration_us
            start, end = row["start_us"] or 0, min(row["end_us"] or length, length)
            clips_each.append(count_clips(end - start, spec.clip))
            spans = request.spans(start, end)[:_CLIPS_A_VIDEO]
            started = time.perf_counter()
            decoded = list(decoder.decode(uri, spans, spec.view, spec.decode, also))
            decode_seconds += time.perf_counter() - started
            frames += [c.frames_VTHWC for c in decoded]
            if kept is not None and also:
                sheets += [len(encode_sheet(c.also[0].frames_VTHWC[0], kept.quality)) for c in decoded]
        except VideoError:
            unreadable += 1
    if not frames:
        raise ManifestError(f"{source}: none of {sample.num_rows} sampled videos can be read")
    teacher.logits(frames[:1], seed=0)
    batch = [frames[i % len(frames)] for i in range(batch_size)]
    started = time.perf_counter()
    teacher.logits(batch, seed=0)
    teacher_ms = (time.perf_counter() - started) * 1e3 / batch_size
    decode_ms = decode_seconds * 1e3 / len(frames)
    readable = len(clips_each) / sample.num_rows
    clips = round(float(np.mean(clips_each)) * entries.num_rows * readable)
    row_bytes = (spec.teacher.num_classes or 0) * (
        2 if spec.logits.dtype == "float16" else 4
    ) + _ROW_OVERHEAD_BYTES
    shard_clips = options.shard_clips or auto_shard_clips(clips, batch_size)
    return Estimate(
        source=source,
        fingerprint=spec.fingerprint(),
        videos=entries.num_rows,
        video_bytes=sum(filter(None, entries["num_bytes"].to_pylist())),
        missing=entries["token"].null_count,
        probed=sample.num_rows,
        unreadable=unreadable,
        clips=clips,
        shards=-(-clips // shard_clips),
        store_bytes=clips * row_bytes,
        frames_bytes=0 if kept is None else round(clips * (np.mean(sheets) if sheets else most_bytes(kept))),
        decode_ms_a_clip=decode_ms,
        teacher_ms_a_clip=teacher_ms,
        seconds=clips * max(decode_ms, teacher_ms) / 1e3,
    )
