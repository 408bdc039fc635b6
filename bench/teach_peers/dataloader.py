"""A script around torch's DataLoader: worker processes decode, the main process scores, one Parquet file at the end.

Tuned: a worker a core, batches as for all, bad files skipped. `bench.teach_peers.dataloader_default` is the same with
torch's own defaults: decoding in the main process, a clip a batch, all threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bench.teach_peers.marks import DONE, note
from bench.teach_peers.work import (
    Columns,
    Scorer,
    Work,
    clips_of,
    columns_of,
    readable_clips_of,
    write_rows,
)
from schemas.targets import TargetSpec

Decode = Callable[[TargetSpec, str, int | None], Iterator[dict[str, Any]]]


class Clips(IterableDataset[dict[str, Any]]):
    """Clips of every n-th video, in each of n workers."""

    def __init__(self, work: Work, decode: Decode) -> None:
        self._rows, self._spec, self._decode = work.rows(), work.target_spec, decode

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for row in self._rows[first::step]:
            yield from self._decode(self._spec, row["uri"], row["duration_us"])


def run(work: Work, decode: Decode, threads: int | None, **tuning: int) -> None:
    loader = DataLoader(Clips(work, decode), collate_fn=columns_of, **tuning)
    scorer = Scorer(work.target_spec, work.batch_size, threads)
    batches: list[Columns] = [scorer(batch) for batch in loader]
    write_rows(batches, Path(work.out) / "all.parquet")
    note(DONE)


def main(default: bool = False) -> int:
    work = Work.load()
    if default:
        run(work, clips_of, None)
    else:
        threads, workers = work.options.get("threads", 2), work.options.get("workers", 2)
        run(work, readable_clips_of, threads, num_workers=workers, batch_size=work.batch_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
