"""What a clip costs here: a few videos are probed, decoded and taught, in this process, and each part is timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.sheets import encode_sheet
from pipeline.tasks.batch_probe import probe_batch
from pipeline.tasks.teach import TeachTask
from pipeline.video.backends import decoder_for
from pipeline.video.probe import probe
from schemas.clip import count_clips
from schemas.errors import VideoError

_CLIPS_A_VIDEO = 4


@dataclass(frozen=True)
class ClipCosts:
    """Of the readable ones of some videos. ``device`` is what the teacher ran on: 'cpu' or 'cuda'.

    ``decode_ms`` is of one core and ``teacher_ms`` of the device, a clip; ``sheet_bytes`` of the frames kept of a clip,
    None where none are kept of this decoding.
    """

    clips_each: tuple[int, ...]
    unreadable: int
    decode_ms: float
    teacher_ms: float
    sheet_bytes: float | None
    batch_size: int
    device: str


def probe_clips(
    task: TeachTask, videos: Sequence[Mapping[str, Any]], batch_size: int | None = None
) -> ClipCosts | None:
    """Costs of the task's clips in ``videos`` (``uri``, ``start_us``, ``end_us``); None where none can be read.

    ``batch_size`` is the fastest of a short probe where not given.

    Raises
    ------
    ModelError
        If the teacher cannot be built here.
    """
    task = replace(task, compile=False)
    task = replace(task, batch_size=batch_size or probe_batch(task))
    decoder, request = decoder_for(task.spec.decode), task.request
    also = [stream.view for stream in request.also]
    clips_each, frames, sheets, seconds, unreadable = [], [], [], 0.0, 0
    for row in videos:
        try:
            length = probe(row["uri"]).duration_us
            start, end = row["start_us"] or 0, min(row["end_us"] or length, length)
            spans = request.spans(start, end)[:_CLIPS_A_VIDEO]
            started = time.perf_counter()
            decoded = list(decoder.decode(row["uri"], spans, task.spec.view, task.spec.decode, also))
            seconds += time.perf_counter() - started
            clips_each.append(count_clips(end - start, task.spec.clip))
        except VideoError:
            unreadable += 1
            continue
        frames += [c.frames_VTHWC for c in decoded]
        if task.keep is not None:
            sheets += [len(encode_sheet(c.also[0].frames_VTHWC[0], task.keep.quality)) for c in decoded]
    if not frames:
        return None
    teacher = task.teacher()
    batch = [frames[i % len(frames)] for i in range(task.batch_size)]
    teacher.logits(batch, seed=0)  # loads the kernels for such a batch
    started = time.perf_counter()
    teacher.logits(batch, seed=0)
    teacher_ms = (time.perf_counter() - started) * 1e3 / task.batch_size
    return ClipCosts(
        clips_each=tuple(clips_each),
        unreadable=unreadable,
        decode_ms=seconds * 1e3 / len(frames),
        teacher_ms=teacher_ms,
        sheet_bytes=sum(sheets) / len(sheets) if sheets else None,
        batch_size=task.batch_size,
        device=teacher.device.type,
    )
