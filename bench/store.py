"""The store: bytes a clip, and clips a second written and read, beside the same arrays as .npz and as plain Parquet.

    python bench/store.py [--clips 200000] [--classes 400] [--rounds 5]

Logits are normal with the spread of a trained network's; the other columns follow from them as in a run.
Writing: Arrow tables that are there already are committed to a new store (synced, each shard once), or
written with ``numpy.savez`` or ``pyarrow.parquet.write_table`` with the store's own options (neither syncs).
Reading: all of it, shard by shard, with a warm cache; ``scan`` besides looks up what counts and joins URI,
label, split and group. Rounds are interleaved; the ratio is the median of the rounds' own ratios of speed to
the peer (above 1: the store is faster).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.plan import ShardFiller
from pipeline.store.kinds import TARGETS
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count, verify
from pipeline.tasks.targets_table import target_table
from schemas.clip import ClipSpec, clip_spans
from schemas.model import ModelRef
from schemas.shard import Shard, ShardResult
from schemas.targets import UNCERTAINTY_COLUMNS, TargetSpec

Written = tuple[Shard, dict[str, np.ndarray], pa.Table]
CLIPS_A_VIDEO = 32
BATCH = 8  # clips that share a teacher_ms
CLIP = ClipSpec(num_frames=2, seconds=1.0)
SCALARS = ["video_id", "start_us", "end_us", "top1", *UNCERTAINTY_COLUMNS]
NO_DICTIONARY: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_statistics": SCALARS[:2],
}


def spec_of(classes: int) -> TargetSpec:
    teacher = ModelRef(factory="bench:none", num_classes=classes, weights_sha256="0" * 64, code="0" * 32)
    return TargetSpec(teacher=teacher, clip=CLIP)


def planned_store(out: Path, clips: int, spec: TargetSpec, shard_clips: int) -> ShardStore:
    """A store with a plan and no data."""
    store = ShardStore.create(
        str(out), kind=TARGETS, name="bench", fingerprint="0" * 32, spec=spec.model_dump(mode="json")
    )
    rows = []
    for n in range(clips // CLIPS_A_VIDEO):
        row: dict[str, Any] = dict.fromkeys(TARGETS.plan_schema.names)
        row |= {
            "video_id": (name := hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest()),
            "file_id": name,
            "uris": [f"s3://archive/videos/{n:09d}.mp4"],
        }
        row |= {
            "duration_us": CLIPS_A_VIDEO * 1_000_000,
            "num_bytes": 1,
            "width": 1,
            "height": 1,
            "fps": 25.0,
        }
        row |= {"codec": "h264", "container": "mp4", "label": f"class {n % 400}", "split": "train"}
        rows.append(row | {"group": f"group {n % 997}", "clips": CLIPS_A_VIDEO, "shard": 0})
    table = pa.Table.from_pylist(rows, TARGETS.plan_schema)
    at = TARGETS.plan_schema.get_field_index("shard")
    shards = pa.array(ShardFiller(shard_clips).assign(table["clips"].to_numpy()))
    store.add_plan(table.set_column(at, TARGETS.plan_schema.field("shard"), shards).to_batches())
    return store


def table_of(shard: Shard, spec: TargetSpec) -> pa.Table:
    """Rows of a shard, as the teacher's task makes them; the same ones each time."""
    spans = [
        (v.video_id, s.start_us, s.end_us)
        for v in shard.videos
        for s in clip_spans(v.start_us, v.end_us, CLIP)
    ]
    rng = np.random.default_rng(shard.key.number)
    n = len(spans)
    logits_NSK = rng.normal(scale=2.0, size=(n, 1, spec.teacher.num_classes or 0)).astype(np.float32)
    keys = {name: [s[at] for s in spans] for at, name in enumerate(("video_id", "start_us", "end_us"))}
    extra = {
        "decode_ms": rng.gamma(5.0, 2.0, n),
        "teacher_ms": np.repeat(rng.gamma(5.0, 2.0, -(-n // BATCH)), BATCH)[:n],
        "damaged": [False] * n,
    }
    return target_table(spec, keys, logits_NSK, extra)


def arrays_of(table: pa.Table) -> dict[str, np.ndarray]:
    arrays = {
        name: table[name].to_numpy() for name in table.column_names if name not in ("video_id", "logits")
    }
    logits = table["logits"].combine_chunks()
    shape = (len(table), logits.type.list_size)
    ids = np.array(table["video_id"].to_pylist(), "S32")
    return {
        "video_id": ids,
        **arrays,
        "logits": logits.flatten().to_numpy(zero_copy_only=False).reshape(shape),
    }


def read_npz(folder: Path, names: list[str] | None) -> int:
    rows = 0
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            read = {name: arrays[name] for name in names or arrays.files}
        rows += len(read["video_id"])
    return rows


def read_plain(folder: Path, names: list[str] | None) -> int:
    return sum(pq.ParquetFile(p).read(columns=names).num_rows for p in sorted(folder.glob("*.parquet")))


def interleaved(work: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Clips a second of each, by round."""
    speeds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            started = time.perf_counter()
            rows = run()
            speeds[name].append(rows / (time.perf_counter() - started))
    return speeds


def print_row(what: str, speeds: dict[str, list[float]]) -> None:
    own = speeds["store"]
    medians = [f"{statistics.median(s):>11,.0f}" for s in speeds.values()]
    ratios = [
        statistics.median(a / b for a, b in zip(own, s, strict=True)) for s in list(speeds.values())[1:]
    ]
    print(f"{what:<32}" + "".join(medians) + "".join(f"{r:>9.2f}" for r in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--shard-clips", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to write; a temporary folder where not given")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-store-", dir=args.dir))
    try:
        run(folder, args.clips, args.classes, args.shard_clips, args.rounds)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, clips: int, classes: int, shard_clips: int, rounds: int) -> None:
    spec = spec_of(classes)
    store = planned_store(folder / "store", clips, spec, shard_clips)
    npz, plain = folder / "npz", folder / "plain"
    npz.mkdir(), plain.mkdir()
    few: list[Written] = []
    for key in store.pending():
        shard = store.shard(key)
        table = table_of(shard, spec)
        arrays = arrays_of(table)
        store.commit(shard, ShardResult(table))
        np.savez(npz / f"{key}.npz", **arrays)  # type: ignore[arg-type]
        pq.write_table(table, plain / f"{key}.parquet", **NO_DICTIONARY)
        if len(few) < 10:
            few.append((shard, arrays, table))
    if not verify(store).clean or not count(store).complete:
        raise SystemExit("the store that was written is not clean and complete")
    rows = count(store).rows
    sizes = {
        f: sum(p.stat().st_size for p in (folder / f).rglob("*.*")) / rows for f in ("store", "npz", "plain")
    }

    print(
        f"{rows:,} clips of {classes} classes in {len(store.committed())} shards; {rounds} rounds, warm cache"
    )
    print(f"{'':<32}{'store':>11}{'npz':>11}{'parquet':>11}{'/npz':>9}{'/parquet':>9}")
    bytes_a_clip = [store_bytes(store) / rows, sizes["npz"], sizes["plain"]]
    print(f"{'bytes a clip':<32}" + "".join(f"{b:>11.1f}" for b in bytes_a_clip))
    print_row(
        "clips/s written", interleaved(writers(folder / "written", few, spec, shard_clips, rounds), rounds)
    )
    every: dict[str, Callable[[], int]] = {
        "store": lambda: sum(t.num_rows for t in scan(store)),
        "npz": lambda: read_npz(npz, None),
        "parquet": lambda: read_plain(plain, None),
    }
    print_row("clips/s read, all columns", interleaved(every, rounds))
    some: dict[str, Callable[[], int]] = {
        "store": lambda: sum(t.num_rows for t in scan(store, SCALARS)),
        "npz": lambda: read_npz(npz, SCALARS),
        "parquet": lambda: read_plain(plain, SCALARS),
    }
    print_row("clips/s read, keys and scores", interleaved(some, rounds))
    started = time.perf_counter()
    verify(store)
    print(f"{'clips/s verified':<32}{rows / (time.perf_counter() - started):>11,.0f}")


def store_bytes(store: ShardStore) -> int:
    return sum(store.files.sizes("data").values()) + sum(store.files.sizes("plan").values())


def writers(
    folder: Path, few: list[Written], spec: TargetSpec, shard_clips: int, rounds: int
) -> dict[str, Callable[[], int]]:
    """Each writes some shards, the store's to a store of its own each time (planned before the clock starts)."""
    rows = sum(table.num_rows for _, _, table in few)
    stores = iter([planned_store(folder / f"s{n}", rows, spec, shard_clips) for n in range(rounds)])
    folder.mkdir(exist_ok=True)

    def to_store() -> int:
        store = next(stores)
        for shard, _, table in few:
            store.commit(shard, ShardResult(table))
        return rows

    def to_npz() -> int:
        for shard, arrays, _ in few:
            np.savez(folder / f"{shard.key}.npz", **arrays)  # type: ignore[arg-type]
        return rows

    def to_plain() -> int:
        for shard, _, table in few:
            pq.write_table(table, folder / f"{shard.key}.parquet", **NO_DICTIONARY)
        return rows

    return {"store": to_store, "npz": to_npz, "parquet": to_plain}


if __name__ == "__main__":
    main()
