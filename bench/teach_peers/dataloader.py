"""A script around torch's DataLoader: worker processes decode, the main process scores, one Parquet file at the end.

Tuned: a worker a core, bad files skipped. `bench.teach_peers.dataloader_default` is the same with torch's defaults.
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


def run(work: Work, workers: int, threads: int | None, decode: Decode) -> None:
    loader = DataLoader(
        Clips(work, decode), batch_size=work.batch_size, num_workers=workers, collate_fn=columns_of
    )
    scorer = Scorer(work.target_spec, work.batch_size, threads)
    batches: list[Columns] = [scorer(batch) for batch in loader]
    write_rows(batches, Path(work.out) / "all.parquet")
    note(DONE)


def main(default: bool = False) -> int:
    work = Work.load()
    if default:
        run(work, 0, None, clips_of)
    else:
        options = work.options
        run(work, options.get("workers", 2), options.get("threads", 2), readable_clips_of)
    return 0


if __name__ == "__main__":
    sys.exit(main())
