"""Ray Data as its documentation suggests: `read_videos`, frames grouped to clips, `map_batches`, `write_parquet`.

`read_videos` decodes every frame (with decord) and gives a row a frame, here resized and stamped with its time; a
clip's frames come together in a `groupby` over the path. Everything else is left at its default.
"""

from __future__ import annotations

import numpy as np
import ray

from bench.teach_peers.marks import DECODE, DONE, note
from bench.teach_peers.ray_start import start_ray
from bench.teach_peers.work import Columns, Scorer, Work
from schemas.clip import clip_spans
from schemas.targets import TargetSpec


class Teach:
    """For `map_batches`."""

    def __init__(self, spec: TargetSpec, batch_size: int) -> None:
        self._scorer = Scorer(spec, batch_size, num_threads=None)

    def __call__(self, batch: Columns) -> Columns:
        return self._scorer(batch)


def clips_of_frames(frames: Columns, spec: TargetSpec) -> Columns:
    """For `map_groups`: all frames of one video to its clips."""
    order = np.argsort(frames["frame_index"])
    times = np.asarray(frames["frame_timestamp"])[order]
    starts_us = np.round((times[:, 0] - times[0, 0]) * 1e6).astype(np.int64)
    end_us = round(float(times[-1, 1] - times[0, 0]) * 1e6)
    spans = clip_spans(0, end_us, spec.clip)
    places = [np.searchsorted(starts_us, span.times_us, side="right") - 1 for span in spans]
    pictures = np.asarray(frames["frame"])[order]
    return {
        "uri": np.array([frames["path"][0]] * len(spans)),
        "start_us": np.array([span.start_us for span in spans], np.int64),
        "end_us": np.array([span.end_us for span in spans], np.int64),
        "frames": np.stack([pictures[place][None] for place in places]),
    }


def main() -> None:
    work = Work.load()
    spec = work.target_spec
    start_ray()
    note(DECODE)
    frames = ray.data.read_videos(
        [row["uri"] for row in work.rows()],
        include_paths=True,
        include_timestamps=True,
        resize=(spec.view.height, spec.view.width),
    )
    clips = frames.groupby("path").map_groups(clips_of_frames, fn_kwargs={"spec": spec}, batch_format="numpy")
    rows = clips.map_batches(
        Teach, fn_constructor_args=(spec, work.batch_size), batch_size=work.batch_size, concurrency=1
    )
    rows.write_parquet(work.out)
    note(DONE)


if __name__ == "__main__":
    main()
