"""Daft as its documentation suggests: a table of paths, a generator function that decodes, a class with the teacher.

A generator function gives a row a clip (it takes the place of an `explode`), a batch method of a class scores, and
`write_parquet` writes. How many run at once, and whether in processes, is left to Daft. Bad files are skipped where
they are decoded. ``DAFT_ANALYTICS_ENABLED=0`` is set by whoever starts this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import daft
import numpy as np
from daft import DataType as T

from bench.teach_peers.marks import DONE, note
from bench.teach_peers.work import KEYS, Scorer, Work, readable_clips_of

SCORES = ("top1", "msp", "margin", "entropy", "energy")


def main() -> None:
    work = Work.load()
    spec, options = work.target_spec, work.options
    shape_VTHWC = (spec.view.num_views, spec.clip.num_frames, spec.view.height, spec.view.width, 3)
    clip_type = T.struct(
        {"start_us": T.int64(), "end_us": T.int64(), "frames": T.tensor(T.uint8(), shape_VTHWC)}
    )
    types = {
        "logits": T.list(T.float32()),
        "top1": T.int32(),
        **{name: T.float32() for name in SCORES[1:]},
    }

    @daft.func(return_dtype=clip_type)
    def decode(uri: str, duration_us: int | None) -> Iterator[dict[str, Any]]:
        for clip in readable_clips_of(spec, uri, duration_us):
            yield {name: clip[name] for name in ("start_us", "end_us", "frames")}

    @daft.cls(max_concurrency=options.get("teachers"))
    class Teach:
        def __init__(self) -> None:
            self._scorer = Scorer(spec, work.batch_size, options.get("threads"))

        @daft.method.batch(return_dtype=T.struct(types), unnest=True, batch_size=work.batch_size)
        def score(self, frames: daft.Series) -> list[dict[str, Any]]:
            stacked = np.stack(frames.to_pylist())
            columns = self._scorer({**dict.fromkeys(KEYS), "frames": stacked})
            logits = columns["logits"].astype(np.float32)
            scores = zip(*(columns[name].tolist() for name in SCORES), strict=True)
            return [
                {"logits": row.tolist(), **dict(zip(SCORES, values, strict=True))}
                for row, values in zip(logits, scores, strict=True)
            ]

    videos = daft.read_parquet(work.videos)
    clips = videos.select("uri", decode(videos["uri"], videos["duration_us"]).alias("clip"))
    clips = clips.where(clips["clip"].not_null())
    clips = clips.select("uri", *(clips["clip"].get(n).alias(n) for n in ("start_us", "end_us", "frames")))
    rows = clips.select("uri", "start_us", "end_us", Teach().score(clips["frames"]))
    rows.write_parquet(work.out)
    note(DONE)


if __name__ == "__main__":
    main()
