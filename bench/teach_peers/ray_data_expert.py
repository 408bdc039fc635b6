"""Ray Data as somebody writes it who knows it: sparse decoding in `flat_map`, a pool of teachers in `map_batches`.

Tuning: the table is dealt to small blocks so that decoding starts everywhere at once; each stage asks for a tenth of
a core, so that all of them run at once and the system shares the cores among them (with whole cores, or such that leave
none for reading, Ray Data waits for ever); one torch thread a teacher; order is not kept. Bad files are skipped where
they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray

from bench.teach_peers.marks import DONE, note
from bench.teach_peers.ray_start import start_ray
from bench.teach_peers.work import Columns, Scorer, Work, readable_clips_of
from schemas.targets import TargetSpec

SHARE = 0.1


class Decode:
    """For `flat_map`: a row of the table to rows of clips."""

    def __init__(self, spec: TargetSpec) -> None:
        self._spec = spec

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from readable_clips_of(self._spec, row["uri"], row["duration_us"])


class Teach:
    """For `map_batches`: batches of clips to batches of rows."""

    def __init__(self, spec: TargetSpec, batch_size: int, num_threads: int | None) -> None:
        self._scorer = Scorer(spec, batch_size, num_threads)

    def __call__(self, batch: Columns) -> Columns:
        return self._scorer(batch)


def pipeline(work: Work) -> ray.data.Dataset:
    """The dataset of rows, not yet run."""
    spec, options = work.target_spec, work.options
    videos = ray.data.read_parquet(work.videos, num_cpus=SHARE)
    if a_block := options.get("videos_a_block", 2):  # 0 leaves the blocks as they are read
        videos = videos.repartition(max(1, len(work.rows()) // a_block))
    clips = videos.flat_map(
        Decode,
        fn_constructor_args=(spec,),
        compute=ray.data.ActorPoolStrategy(size=options.get("decoders", 2)),
        num_cpus=SHARE,
    )
    return clips.map_batches(
        Teach,
        fn_constructor_args=(spec, work.batch_size, options.get("threads", 1)),
        batch_size=work.batch_size,
        compute=ray.data.ActorPoolStrategy(size=options.get("teachers", 2)),
        num_cpus=SHARE,
    )


def main() -> None:
    work = Work.load()
    start_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    pipeline(work).write_parquet(work.out, ray_remote_args={"num_cpus": SHARE})
    note(DONE)


if __name__ == "__main__":
    main()
