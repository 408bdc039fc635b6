"""Small target stores with known content. The teacher is a hash: a clip's logits follow from its key."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.plan import ShardFiller
from pipeline.store.kinds import TARGETS
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec, clip_spans
from schemas.model import ModelRef
from schemas.shard import Failure, Shard, ShardKey, ShardResult
from schemas.targets import UNCERTAINTY_COLUMNS, LogitsSpec, TargetSpec, target_schema
from schemas.video import Video

CLASSES = 3
CLIP = ClipSpec(num_frames=2, seconds=1.0)
FINGERPRINT = "0123456789abcdef" * 2
TEACHER = ModelRef(factory="teachers:hash", num_classes=CLASSES, weights_sha256="0" * 64, code="0" * 32)


@dataclass(frozen=True)
class Fault:
    """What befalls a video: the first ``salvaged`` clips come nevertheless."""

    permanent: bool = False
    salvaged: int = 0
    stage: str = "decode"


def video_id(number: int) -> str:
    return f"{zlib.crc32(str(number).encode()):08x}{number:024x}"


def plan_row(number: int, clips: int = 2, **changes: Any) -> dict[str, Any]:
    """One video of ``clips`` clips, without its shard."""
    row: dict[str, Any] = dict.fromkeys(TARGETS.plan_schema.names)
    row |= {"video_id": video_id(number), "file_id": video_id(number), "uris": [f"/v/{number}.mp4"]}
    row |= {"duration_us": clips * 1_000_000, "num_bytes": 1, "width": 1, "height": 1, "fps": 25.0}
    row |= {"codec": "h264", "container": "mp4", "label": f"label{number % 3}", "split": "train"}
    return row | {"group": f"g{number}", "clips": clips, "shard": 0} | changes


def dealt(rows: Iterable[Mapping[str, Any]], shard_clips: int) -> list[pa.RecordBatch]:
    """Plan batches: the rows dealt to shards in their order."""
    table = pa.Table.from_pylist([dict(r) for r in rows], TARGETS.plan_schema)
    shards = pa.array(ShardFiller(shard_clips).assign(table["clips"].to_numpy()))
    field = table.schema.field("shard")
    return table.set_column(table.schema.get_field_index("shard"), field, shards).to_batches()


def amendment(rows: Iterable[Mapping[str, Any]]) -> list[pa.RecordBatch]:
    """Plan batches of rows without work."""
    table = pa.Table.from_pylist([{**r, "clips": 0, "shard": -1} for r in rows], TARGETS.plan_schema)
    return table.to_batches()


def spec_of(dtype: str = "float16") -> dict[str, Any]:
    logits = LogitsSpec.model_validate({"dtype": dtype})
    return TargetSpec(teacher=TEACHER, clip=CLIP, logits=logits).model_dump(mode="json")


def new_store(
    out: str, videos: int = 6, shard_clips: int = 6, clips: int = 2, dtype: str = "float16"
) -> ShardStore:
    """A store with one generation of ``videos`` videos."""
    store = empty_store(out, dtype)
    store.add_plan(dealt([plan_row(n, clips) for n in range(videos)], shard_clips))
    return store


def empty_store(out: str, dtype: str = "float16") -> ShardStore:
    return ShardStore.create(out, kind=TARGETS, name="t", fingerprint=FINGERPRINT, spec=spec_of(dtype))


def result_of(shard: Shard, faults: Mapping[str, Fault] | None = None, dtype: str = "float16") -> ShardResult:
    """What the hashing teacher says of a shard; ``faults`` by video id."""
    keys: list[tuple[str, int, int]] = []
    failures = []
    for video in shard.videos:
        spans = clip_spans(video.start_us, video.end_us, CLIP)
        fault = (faults or {}).get(video.video_id)
        if fault is not None:
            missing = len(spans) - fault.salvaged
            failures.append(failure_of(video, fault, missing))
            spans = spans[: fault.salvaged]
        keys += [(video.video_id, s.start_us, s.end_us) for s in spans]
    return ShardResult(table_of(keys, dtype), tuple(failures), {"teacher": 0.5})


def failure_of(video: Video, fault: Fault, missing: int) -> Failure:
    error = "Damaged" if fault.permanent else "TimeoutError"
    return Failure(
        video.video_id, video.uri, fault.stage, error, "…", fault.permanent, 3, missing, fault.salvaged
    )


def table_of(
    keys: Sequence[tuple[str, int, int]], dtype: str = "float16", classes: int = CLASSES
) -> pa.Table:
    """Rows of the target schema for some (id, start, end)."""
    schema = target_schema(classes, dtype=dtype)
    seeds = [zlib.crc32(f"{i}:{start}".encode()) for i, start, _ in keys]
    logits_NK = np.array([np.random.default_rng(s).normal(size=classes) * 3 for s in seeds]).reshape(
        -1, classes
    )
    values = pa.array(logits_NK.astype(dtype).ravel())
    floats = {
        name: np.arange(len(keys), dtype=np.float32)
        for name in (*UNCERTAINTY_COLUMNS, "decode_ms", "teacher_ms")
    }
    columns: dict[str, Any] = {
        "video_id": [k[0] for k in keys],
        "start_us": [k[1] for k in keys],
        "end_us": [k[2] for k in keys],
        "logits": pa.FixedSizeListArray.from_arrays(values, type=schema.field("logits").type),
        "top1": logits_NK.argmax(axis=1),
        "damaged": [False] * len(keys),
        **floats,
    }
    arrays = [c if isinstance(c := columns[f.name], pa.Array) else pa.array(c, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def finish(store: ShardStore, faults: Mapping[str, Fault] | None = None) -> list[ShardKey]:
    """Compute and commit what is pending; the keys that were."""
    pending = store.pending()
    dtype = store.document.spec["logits"]["dtype"]
    for key in pending:
        shard = store.shard(key)
        store.commit(shard, result_of(shard, faults, dtype))
    return pending


def keys_of(store: ShardStore) -> list[tuple[str, int]]:
    """Keys that a reader sees, in the order they come."""
    table = read(store, ["video_id", "start_us"])
    return list(zip(table["video_id"].to_pylist(), table["start_us"].to_pylist(), strict=True))


def shown(store: ShardStore) -> list[dict[str, Any]]:
    """Rows that a reader sees, sorted by key, with what is joined."""
    return sorted(read(store).to_pylist(), key=lambda r: (r["video_id"], r["start_us"]))


def planned_keys(numbers: Iterable[int], clips: int = 2) -> list[tuple[str, int]]:
    """Keys of some videos as they are planned, sorted."""
    return sorted((video_id(n), i * 1_000_000) for n in numbers for i in range(clips))


def moved(row: Mapping[str, Any], *uris: str) -> dict[str, Any]:
    return {**row, "uris": list(uris)}
