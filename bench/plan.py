"""Does planning grow with the archive? A thousand against a million videos, each in a process of its own.

    python bench/plan.py [--videos 1000 1000000] [--index]

Each step is timed, and the process's peak resident memory is read after it, with the libraries alone as the
base. ``--index`` measures the index and the catalogue too, with made-up probe rows in place of files. The
videos are synthetic: one URI each, ten labels, every hundredth in the test split.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH = 16384


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Steps:
    """Times steps and notes the peak after each; ``rows`` is [name, seconds, peak above the base in MB]."""

    def __init__(self) -> None:
        self.base_mb = peak_mb()
        self.rows: list[tuple[str, float, float]] = []

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self.rows.append((name, time.perf_counter() - started, peak_mb() - self.base_mb))
        return result


def make_videos(path: Path, num_videos: int) -> None:
    """A Parquet file of `VIDEOS_SCHEMA`, written in batches."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.video import VIDEOS_SCHEMA

    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, VIDEOS_SCHEMA, compression="zstd") as writer:
        for start in range(0, num_videos, BATCH):
            n = min(BATCH, num_videos - start)
            numbers = range(start, start + n)
            ids = [rng.bytes(16).hex() for _ in numbers]
            columns: dict[str, Any] = {
                "video_id": ids,
                "file_id": ids,
                "uris": [[uri_of(i)] for i in numbers],
                "start_us": pa.nulls(n, pa.int64()),
                "end_us": pa.nulls(n, pa.int64()),
                "duration_us": rng.integers(2_000_000, 60_000_000, n),
                "num_bytes": rng.integers(10**5, 10**8, n),
                "width": np.full(n, 320, np.int32),
                "height": np.full(n, 240, np.int32),
                "fps": np.full(n, 25.0),
                "codec": ["h264"] * n,
                "container": ["mov,mp4,m4a,3gp,3g2,mj2"] * n,
                "label": [f"class {i % 10}" for i in numbers],
                "split": ["test" if i % 100 == 0 else "train" for i in numbers],
                "group": pa.nulls(n, pa.string()),
                "unreadable": pa.nulls(n, pa.string()),
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=VIDEOS_SCHEMA))


def make_manifest(path: Path, num_videos: int) -> None:
    """A Parquet manifest of local files that are not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("uri", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, num_videos, BATCH):
            numbers = range(start, min(start + BATCH, num_videos))
            rows = {"uri": [uri_of(i) for i in numbers], "label": [f"class {i % 10}" for i in numbers]}
            writer.write_batch(pa.RecordBatch.from_pydict(rows, schema=schema))


def uri_of(i: int) -> str:
    return f"/archive/absent/{i // 1000:05d}/video-{i:09d}.mp4"


def measure_plan(source: Path, out: Path) -> Steps:
    """Plan all videos of ``source`` in a new target store, then look again with nothing new."""
    import pyarrow.parquet as pq

    from pipeline.replan import known_videos, next_generation
    from pipeline.store.kinds import TARGETS
    from pipeline.store.shard_store import ShardStore
    from schemas.clip import ClipSpec

    def batches() -> Iterator[Any]:
        with pq.ParquetFile(source) as parquet:
            for group in range(parquet.num_row_groups):  # iter_batches would hold on to what it has read
                yield from parquet.read_row_group(group).to_batches()

    store = ShardStore.create(str(out), kind=TARGETS, name="targets", fingerprint="0" * 32, spec={})
    steps, clip = Steps(), ClipSpec()
    added = steps.step("next_generation", lambda: next_generation(batches, clip))
    steps.step("add_plan", lambda: store.add_plan(added.rows()))
    store = ShardStore.open(store.url)
    keys = steps.step("pending", store.pending)
    steps.step("shard, first", lambda: store.shard(keys[0]))
    steps.step("shard, last", lambda: store.shard(keys[-1]))
    known = steps.step("known_videos", lambda: known_videos(store))
    again = steps.step("next_generation, nothing new", lambda: next_generation(batches, clip, known=known))
    if not again.is_empty or added.new_videos != pq.read_metadata(source).num_rows:
        raise ValueError(f"planned {added.new_videos}; the second look found {again}")
    return steps


def measure_index(source: Path, out: Path) -> Steps:
    """Read a manifest, plan and commit its probes (made up), and build the catalogue; then look again."""
    import pyarrow.parquet as pq

    from jobs.index import add_entries, catalog, entries_of
    from pipeline.manifest import read_entries
    from pipeline.store.kinds import VIDEOS
    from pipeline.store.shard_store import ShardStore

    store = ShardStore.create(str(out), kind=VIDEOS, name="videos", fingerprint="0" * 32, spec={})
    steps = Steps()
    entries = steps.step("read_entries", lambda: read_entries(str(source)))
    steps.step("add_entries", lambda: add_entries(store, entries, "bench"))
    steps.step("commit made-up probes", lambda: commit_probes(store))
    videos = steps.step("catalog", lambda: catalog(store, entries))
    planned = steps.step("add_entries, nothing new", lambda: add_entries(store, entries, "bench"))
    every = steps.step("entries_of", lambda: entries_of(store))
    num_rows = pq.read_metadata(source).num_rows
    if (videos.num_rows, planned, every.num_rows) != (num_rows, 0, num_rows):
        raise ValueError(
            f"{videos.num_rows} videos, {planned} planned anew, {every.num_rows} of {num_rows} entries"
        )
    return steps


def commit_probes(store: Any) -> None:
    """Commit every pending shard with rows that no file stands behind."""
    import pyarrow as pa

    from schemas.shard import ShardResult
    from schemas.video import PROBE_SCHEMA

    same = {"id_method": "full", "num_bytes": 10**6, "duration_us": 10**7, "width": 320, "height": 240}
    same |= {"rotation": 0, "fps": 25.0, "num_frames": 250, "num_keyframes": 10, "codec": "h264"}
    same |= {"container": "mp4", "has_audio": False, "truncated": False, "probe_ms": 1.0}
    for key in store.pending():
        shard = store.shard(key)
        rows = [{"item_id": v.video_id, "file_id": v.video_id[::-1], **same} for v in shard.videos]
        store.commit(shard, ShardResult(pa.Table.from_pylist(rows, PROBE_SCHEMA)))


MEASURES = {"plan": (make_videos, measure_plan), "index": (make_manifest, measure_index)}


def child(what: str, role: str, folder: Path, num_videos: int) -> None:
    make, measure = MEASURES[what]
    source = folder / f"{what}-{num_videos}.parquet"
    if role == "make":
        make(source, num_videos)
        return
    steps = measure(source, folder / f"out-{what}-{num_videos}")
    print(json.dumps({"base_mb": steps.base_mb, "rows": steps.rows}))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--videos", type=int, nargs=2, default=[1_000, 1_000_000], metavar=("FEW", "MANY"))
    parser.add_argument("--index", action="store_true", help="measure the index and the catalogue too")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, role, folder, num_videos = args.child
        return child(what, role, Path(folder), int(num_videos))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for what in ["plan", "index"] if args.index else ["plan"]:
            few, many = (run(what, folder, n) for n in args.videos)
            print_table(what, args.videos, few, many)


def run(what: str, folder: str, num_videos: int) -> dict[str, Any]:
    """Make the source and measure, each in a fresh process; this one stays small: Linux hands its peak on."""
    command = [sys.executable, __file__, "--child", what]
    subprocess.run([*command, "make", folder, str(num_videos)], check=True)
    done = subprocess.run([*command, "run", folder, str(num_videos)], check=True, stdout=subprocess.PIPE)
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def print_table(what: str, videos: list[int], few: dict[str, Any], many: dict[str, Any]) -> None:
    print(f"\n{what}: seconds and peak memory above the libraries' own ({many['base_mb']:.0f} MB)")
    print(f"{'step':32}{videos[0]:>10} videos{'':6}{videos[1]:>10} videos")
    for (name, seconds_a, mb_a), (_, seconds_b, mb_b) in zip(few["rows"], many["rows"], strict=True):
        print(f"{name:32}{seconds_a:9.3f} s {mb_a:5.0f} MB{seconds_b:12.2f} s {mb_b:6.0f} MB")
    growth = many["base_mb"] + many["rows"][-1][2] - few["base_mb"] - few["rows"][-1][2]
    total = sum(seconds for _, seconds, _ in many["rows"])
    print(f"{'in all':32}{'':18}{total:12.2f} s, growth of the peak {growth:.0f} MB")


if __name__ == "__main__":
    main()
