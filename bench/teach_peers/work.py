"""The job that every contender does, and its parts: which clips, decoding them, scoring them, the rows.

Peers use the decoder and the teacher that Locum uses, so that what is compared is how they are driven. They are handed
each video's duration in their table, as Locum is by its index; where a file could not be probed there is none, and
`clips_of` meets the file's error itself. ``temporal_jsd``, which needs a video's clips together, is asked of Locum
only.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.teach_peers.marks import DECODE, note
from schemas.clip import clip_spans
from schemas.targets import TargetSpec

Columns = dict[str, Any]
KEYS = ("uri", "start_us", "end_us")

_building = threading.Lock()
"""torch's generator is the whole process's, and some contenders make teachers in several threads at once."""


@dataclass(frozen=True)
class Work:
    """One job. ``videos`` is a Parquet table of uri and duration_us, ``index`` the same videos as Locum's index."""

    videos: str
    index: str
    out: str
    spec: dict[str, Any]
    batch_size: int = 16
    options: dict[str, int] = field(default_factory=dict)
    """Tuning that a contender may take, by name."""
    checkpoint: str = ""
    """For the contenders that can resume: where."""

    @classmethod
    def load(cls) -> Work:
        """Of the file that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @property
    def target_spec(self) -> TargetSpec:
        return TargetSpec(**self.spec)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table of videos."""
        return list(pq.read_table(self.videos).to_pylist())


def clips_of(spec: TargetSpec, uri: str, duration_us: int | None) -> Iterator[dict[str, Any]]:
    """The clips of a video as rows: uri, start_us, end_us and frames (V, T, H, W, 3), decoded as Locum does.

    Raises `schemas.errors.VideoError` where the file is damaged.
    """
    from pipeline.video.probe import probe
    from pipeline.video.pyav import PyAVDecoder

    note(DECODE)
    if duration_us is None or duration_us != duration_us:  # a table may hand over NaN for a null
        duration_us = probe(uri).duration_us
    spans = clip_spans(0, int(duration_us), spec.clip)
    for clip in PyAVDecoder().decode(uri, spans, spec.view, spec.decode):
        span = clip.span
        yield {"uri": uri, "start_us": span.start_us, "end_us": span.end_us, "frames": clip.frames_VTHWC}


def readable_clips_of(spec: TargetSpec, uri: str, duration_us: int | None) -> Iterator[dict[str, Any]]:
    """`clips_of`, but a damaged file ends early instead of failing: what somebody who knows archives writes."""
    from schemas.errors import VideoError

    try:
        yield from clips_of(spec, uri, duration_us)
    except VideoError as e:
        print(f"skipped: {e}", file=sys.stderr)


class Scorer:
    """Holds the teacher; turns a batch of clips, column by column, into a batch of rows."""

    def __init__(self, spec: TargetSpec, batch_size: int, num_threads: int | None) -> None:
        from pipeline.models.teacher import Teacher

        with _building:
            self._teacher = Teacher(spec, device="cpu", batch_size=batch_size, num_threads=num_threads)

    def __call__(self, batch: Columns) -> Columns:
        """Keys as they came, logits (N, K) in float16, top1 and uncertainties, without the frames."""
        from pipeline import uncertainty as un

        logits_NK = self._teacher.logits(np.asarray(batch["frames"])).mean(axis=1, dtype=np.float32)
        probs_NK = un.softmax(logits_NK)
        return {
            **{name: batch[name] for name in KEYS},
            "logits": logits_NK.astype(np.float16),
            "top1": logits_NK.argmax(axis=1).astype(np.int32),
            "msp": un.msp(probs_NK),
            "margin": un.margin(probs_NK),
            "entropy": un.entropy(probs_NK),
            "energy": un.energy(logits_NK),
        }


def columns_of(clips: Sequence[dict[str, Any]]) -> Columns:
    """Rows as columns; the frames become one array."""
    columns: Columns = {name: [clip[name] for clip in clips] for name in KEYS}
    columns["frames"] = np.stack([clip["frames"] for clip in clips])
    return columns


def write_rows(batches: Sequence[Columns], path: Path) -> None:
    """One Parquet file of scored batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if batches:
        pq.write_table(pa.concat_tables([_table(batch) for batch in batches]), path)


def _table(batch: Columns) -> pa.Table:
    columns = dict(batch)
    logits_NK = columns["logits"]
    columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits_NK.ravel()), logits_NK.shape[1])
    return pa.table(columns)
