"""Ideal: one pinned process a core, one torch thread each, over equal shares of the list; one Parquet file each.

What two cores can do with this decoder and this teacher and nothing else. The mark ``begin`` is set when all processes
have imported, loaded and warmed up what they need. `bench.teach_peers.ideal_kept` is the same with the allocator set as
Locum sets it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from bench.teach_peers.marks import BEGIN, DONE, note
from bench.teach_peers.work import Columns, Scorer, Work, columns_of, readable_clips_of, write_rows
from pipeline.models.memory import keep_freed_memory


def share(work: Work, rows: list[dict[str, Any]], core: int, ready: Any, kept: bool) -> None:
    """One process's part."""
    os.sched_setaffinity(0, {core})
    if kept:
        keep_freed_memory()
    spec = work.target_spec
    scorer = Scorer(spec, work.batch_size, num_threads=1)
    import pipeline.video.pyav  # noqa: F401 - loaded before the clock starts

    ready.wait()
    batches: list[Columns] = []
    waiting: list[dict[str, Any]] = []
    for row in rows:
        for clip in readable_clips_of(spec, row["uri"], row["duration_us"]):
            waiting.append(clip)
            if len(waiting) == work.batch_size:
                batches.append(scorer(columns_of(waiting)))
                waiting = []
    if waiting:
        batches.append(scorer(columns_of(waiting)))
    write_rows(batches, Path(work.out) / f"{core}.parquet")


def deal(rows: list[dict[str, Any]], parts: int) -> list[list[dict[str, Any]]]:
    """Parts of nearly equal duration: the longest first, each to the part that has least."""
    dealt: list[list[dict[str, Any]]] = [[] for _ in range(parts)]
    held = [0] * parts
    for row in sorted(rows, key=lambda row: -(row["duration_us"] or 0)):
        at = held.index(min(held))
        dealt[at].append(row)
        held[at] += row["duration_us"] or 0
    return dealt


def main(kept: bool = False) -> int:
    work = Work.load()
    cores = sorted(os.sched_getaffinity(0))[: work.options.get("processes", 2)]
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(len(cores) + 1)
    parts = deal(work.rows(), len(cores))
    tasks = [
        spawn.Process(target=share, args=(work, part, core, ready, kept))
        for part, core in zip(parts, cores, strict=True)
    ]
    for task in tasks:
        task.start()
    ready.wait()
    note(BEGIN)
    for task in tasks:
        task.join()
    note(DONE)
    return max(abs(task.exitcode or 0) for task in tasks)


if __name__ == "__main__":
    sys.exit(main())
