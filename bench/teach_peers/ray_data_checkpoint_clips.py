"""Ray Data's checkpoint with one row in for each row out: a table of clips, each decoded by itself.

That is what its documentation asks of the id: one for each row, from the input to the end. The price is that a file is
opened, and decoded from the keyframe before, once for each of its clips.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from bench.teach_peers.ray_data_checkpoint import configure, start, write
from bench.teach_peers.ray_data_expert import SHARE, Teach
from bench.teach_peers.work import Columns, Work
from schemas.clip import clip_spans
from schemas.targets import TargetSpec


class DecodeOne:
    """For `map`: a row that names a clip to one that holds its frames."""

    def __init__(self, spec: TargetSpec) -> None:
        from pipeline.video.pyav import PyAVDecoder

        self._spec, self._decoder = spec, PyAVDecoder()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        spec = self._spec
        span = clip_spans(0, row.pop("duration_us"), spec.clip)[row.pop("number")]
        (clip,) = self._decoder.decode(row["uri"], [span], spec.view, spec.decode)
        return {**row, "start_us": span.start_us, "end_us": span.end_us, "frames": clip.frames_VTHWC}


class TeachWithId(Teach):
    def __call__(self, batch: Columns) -> Columns:
        return {**super().__call__(batch), "clip_id": batch["clip_id"]}


def table_of_clips(work: Work) -> Path:
    """Beside the checkpoint; the same in each run."""
    rows = [
        {**row, "number": number, "clip_id": f"{row['uri']}#{number}"}
        for row in work.rows()
        for number in range(len(clip_spans(0, row["duration_us"], work.target_spec.clip)))
    ]
    path = Path(work.checkpoint).with_name("clips.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def main() -> None:
    work = Work.load()
    start()
    configure(work, "clip_id")
    path, spec, options = table_of_clips(work), work.target_spec, work.options
    clips = ray.data.read_parquet(str(path), num_cpus=SHARE)
    clips = clips.repartition(max(1, pq.ParquetFile(path).metadata.num_rows // work.batch_size))
    frames = clips.map(
        DecodeOne,
        fn_constructor_args=(spec,),
        compute=ray.data.ActorPoolStrategy(size=options.get("decoders", 2)),
        num_cpus=SHARE,
    )
    rows = frames.map_batches(
        TeachWithId,
        fn_constructor_args=(spec, work.batch_size, 1),
        batch_size=work.batch_size,
        compute=ray.data.ActorPoolStrategy(size=options.get("teachers", 2)),
        num_cpus=SHARE,
    )
    write(rows, work)


if __name__ == "__main__":
    main()
