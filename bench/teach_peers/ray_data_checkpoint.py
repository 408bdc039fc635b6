"""The expert's Ray Data pipeline with Ray Data's checkpoint (`ray.data.checkpoint`), for `bench.teach_crash`.

The checkpoint remembers the ids of rows that were written, and leaves the rows with those ids out of the input of the
next run. The id has to be a column of the input that stays with a row to the end. Here that is the file's URI, which
all clips of a file carry: one row in, many out.

A video whose clips do not end up in one block is what this cannot tell apart. A block holds 128 MiB, some 220 clips;
``--option ray_data_checkpoint.block_mb=4`` makes small blocks, as seen by a video of many clips.
"""

from __future__ import annotations

from pathlib import Path

import ray
from ray.data.checkpoint import CheckpointConfig

from bench.teach_peers.marks import DONE, note
from bench.teach_peers.ray_data_expert import SHARE, pipeline
from bench.teach_peers.ray_start import start_ray
from bench.teach_peers.work import Work


def start() -> None:
    """A Ray that believes in four cores: with two, the filter of the second life (a whole core) and the stages leave
    none for listing files (another), and all wait for ever."""
    start_ray(num_cpus=4)


def configure(work: Work, id_column: str) -> None:
    """To be called before the dataset is made, which takes the settings of that moment with it."""
    Path(work.checkpoint).mkdir(parents=True, exist_ok=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    if block_mb := work.options.get("block_mb"):
        context.target_max_block_size = block_mb << 20
    context.checkpoint_config = CheckpointConfig(
        id_column, work.checkpoint, delete_checkpoint_on_success=False
    )


def write(rows: ray.data.Dataset, work: Work) -> None:
    rows.write_parquet(work.out, ray_remote_args={"num_cpus": SHARE})
    note(DONE)


def main() -> None:
    work = Work.load()
    start()
    configure(work, "uri")
    write(pipeline(work), work)


if __name__ == "__main__":
    main()
