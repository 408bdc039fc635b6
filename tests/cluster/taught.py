"""Targets of tiny archives on a runner, for tests: options, the call, what of the rows must repeat; a white video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pyarrow as pa

from jobs.teach import TeachOptions, TeachReport, teach
from pipeline.runner import Runner
from pipeline.store.read import read
from tests.tiny import tiny_spec

TIMINGS = ("decode_ms", "teacher_ms")
OPTIONS = TeachOptions(shard_clips=4, num_threads=1, batch_size=2)
FAULTY = f"{Path(__file__).parent / 'faulty_teacher.py'}:build"


def values(report: TeachReport) -> pa.Table:
    return read(report.store).drop_columns(TIMINGS)


def taught(source: Path, out: Path, runner: Runner | None, **changes: object) -> TeachReport:
    spec = tiny_spec(**changes)
    return teach(str(source), str(out), spec, OPTIONS, runner=runner)


def make_bright(path: Path) -> Path:
    """A white video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
