"""Frame stores with known content, beside the hashing teacher's targets: the colour of a frame says which it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.sheets import encode_sheet
from pipeline.store.kinds import FRAMES
from pipeline.store.shard_store import ShardStore
from schemas.clip import clip_spans
from schemas.frames import FRAMES_SCHEMA, FrameSpec
from schemas.shard import Shard, ShardResult
from schemas.targets import ViewSpec
from tests.pipeline.store.stores import CLIP, dealt, plan_row

FRAMES_EACH = 4
SPEC = FrameSpec(clip=CLIP.model_copy(update={"num_frames": FRAMES_EACH}), view=ViewSpec(width=16, height=16))


def frame_store(out: str, numbers: Iterable[int], shard_clips: int = 5, clips: int = 2) -> ShardStore:
    """Kept frames of some of the hashing teacher's videos, all committed."""
    store = ShardStore.create(
        out, kind=FRAMES, name="f", fingerprint=SPEC.fingerprint(), spec=SPEC.model_dump(mode="json")
    )
    store.add_plan(dealt([plan_row(n, clips) for n in numbers], shard_clips))
    for key in store.pending():
        shard = store.shard(key)
        store.commit(shard, _result(shard))
    return store


def shade(video_id: str, start_us: int, frame: int) -> tuple[int, int, int]:
    """The colour of a frame: red for the video, green for the frame's number since the video's start."""
    number = int(video_id[8:], 16)
    return (number * 17) % 256, (start_us * FRAMES_EACH // 1_000_000 + frame) * 12 % 256, 128


def colours_of(frames_THWC: np.ndarray) -> np.ndarray:
    """The mean colour of each frame; (T, 3)."""
    return frames_THWC.astype(float).mean(axis=(1, 2))


def _result(shard: Shard) -> ShardResult:
    rows: list[dict[str, Any]] = []
    for video in shard.videos:
        for span in clip_spans(video.start_us, video.end_us, CLIP):
            frames = np.empty((FRAMES_EACH, 16, 16, 3), np.uint8)
            for t in range(FRAMES_EACH):
                frames[t] = shade(video.video_id, span.start_us, t)
            sheet = encode_sheet(frames, 95)
            keys = {"video_id": video.video_id, "start_us": span.start_us, "end_us": span.end_us}
            rows.append({**keys, "sheet": sheet, "damaged": False})
    return ShardResult(pa.Table.from_pylist(rows, FRAMES_SCHEMA))
