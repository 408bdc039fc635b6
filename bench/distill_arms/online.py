"""Online distillation: the teacher in the loop, video decoded at every step. The same order, augmentation and steps
as from the cache, so that what differs is what is paid, and that the teacher sees the very window that the student
sees.

A `Loader` whose batches come from the videos themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.loader import Batch, Loader
from pipeline.distill.order import Window
from pipeline.distill.targets import TargetReader
from pipeline.known import I64
from pipeline.models.teacher import Teacher
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpan, sample_times
from schemas.frames import FrameSpec
from schemas.targets import TargetSpec

Frames = NDArray[np.uint8]
_DECODERS = 2


class OnlineLoader(Loader):
    """Decodes each clip of a batch for the student and for the teacher at once, and asks the teacher."""

    def __init__(
        self, targets: TargetReader, frames: ShardStore, store: ShardStore, teacher: Teacher
    ) -> None:
        super().__init__(targets, frames)
        self._teacher, self._temperature = teacher, targets.temperature
        self._spec = TargetSpec(**store.document.spec)
        self._frame_spec = FrameSpec(**frames.document.spec)
        self._decoder, self._pool = PyAVDecoder(), ThreadPoolExecutor(_DECODERS)
        self._uris = _uris(store)

    def _read(self, window: Window) -> dict[int, bytes]:
        return {}

    def look_up(self, rows_N: I64, offset_N: I64) -> Batch:
        """What the teacher says of windows that start so many frames into some rows' clips, at the temperature."""
        return self._look_up(0, rows_N, {}, offset_N)

    def _look_up(self, step: int, rows_N: I64, sheets: Mapping[int, bytes], offset_N: I64) -> Batch:
        pairs = self.decoded(rows_N, offset_N)
        logits_NK = self._teacher.logits([of_teacher for of_teacher, _ in pairs]).mean(axis=1)
        return Batch(
            step,
            np.stack([self._as_kept(of_student) for _, of_student in pairs]),
            softmax(logits_NK / np.float32(self._temperature)),
            self._snapshot.rows_R["label"][rows_N].astype(np.int64),
        )

    def decoded(self, rows_N: I64, offset_N: I64) -> list[tuple[Frames, Frames]]:
        """Frames of such windows as the teacher (V, T, H, W, 3) and as the student (T, H, W, 3) sees them, decoded."""
        t, ids = self._snapshot.num_frames, self._snapshot.video_ids(rows_N)
        jobs = [
            self._pool.submit(
                self._decode, self._uris[name], int(row["start_us"]), int(row["end_us"]), int(o), t
            )
            for name, row, o in zip(ids, self._snapshot.rows_R[rows_N], offset_N, strict=True)
        ]
        return [job.result() for job in jobs]

    def _as_kept(self, frames_THWC: Frames) -> Frames:
        """Both arms see JPEGs."""
        return decode_sheet(encode_sheet(frames_THWC, self._frame_spec.quality), len(frames_THWC))

    def _decode(
        self, uri: str, start_us: int, end_us: int, offset: int, num_frames: int
    ) -> tuple[Frames, Frames]:
        """Frames for the teacher and for the student of a window that starts ``offset`` frames into a clip."""
        length = self._spec.clip.length_us
        shift = offset * length // num_frames
        limit = end_us + (length if offset else 0)
        start = start_us + shift
        span = ClipSpan(
            start,
            min(start + length, limit),
            sample_times(start, limit, length, self._spec.clip.num_frames),
            (sample_times(start, limit, length, num_frames),),
        )
        (clip,) = self._decoder.decode(
            uri, [span], self._spec.view, self._spec.decode, also=[self._frame_spec.view]
        )
        return clip.frames_VTHWC, clip.also[0].frames_VTHWC[0]


def _uris(store: ShardStore) -> dict[str, str]:
    return {
        row["video_id"]: row["uri"] for table in scan(store, ["video_id", "uri"]) for row in table.to_pylist()
    }
