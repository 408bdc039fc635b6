"""Loaders whose batches come from the videos themselves, in the same order and with the same augmentation as from the
cache, so that what differs is what is paid.

`VideoLoader` decodes what the student sees; targets are those of the cache. `OnlineLoader` is online distillation, the
teacher in the loop, which sees the very window that the student sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.distill.loader import Batch, Loader
from pipeline.distill.order import Window
from pipeline.distill.targets import TargetReader
from pipeline.models.teacher import Teacher
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from pipeline.video.pyav import PyAVDecoder
from schemas.arrays import I64
from schemas.clip import ClipSpan, sample_times
from schemas.frames import FrameSpec
from schemas.targets import TargetSpec

T = TypeVar("T")
Frames = NDArray[np.uint8]
Decode = Callable[[str, int, int, int], T]
"""Of a video (uri), a clip (start_us, end_us), and by how many kept frames to shift it."""

_DECODERS = 2


class VideoLoader(Loader):
    """Decodes the student's frames of each clip of a batch."""

    def __init__(self, targets: TargetReader, frames: ShardStore, store: ShardStore) -> None:
        super().__init__(targets, frames)
        self._spec = TargetSpec(**store.document.spec)
        self._frame_spec = FrameSpec(**frames.document.spec)
        self._decoder, self._pool = PyAVDecoder(), ThreadPoolExecutor(_DECODERS)
        self._uris = _uris(store)

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()

    def _read(self, window: Window) -> dict[int, bytes]:
        return {}

    def _frames_at(self, rows_N: I64, sheets: Mapping[int, bytes], offset_N: I64) -> Frames:
        return np.stack(self.decoded(rows_N, offset_N, self._for_student))

    def decoded(self, rows_N: I64, offset_N: I64, decode: Decode[T]) -> list[T]:
        """What ``decode`` makes of windows that start so many frames into some rows' clips."""
        clips = zip(
            self._snapshot.video_ids(rows_N), self._snapshot.rows_R[rows_N], offset_N.tolist(), strict=True
        )
        jobs = [
            self._pool.submit(decode, self._uris[name], int(row["start_us"]), int(row["end_us"]), offset)
            for name, row, offset in clips
        ]
        return [job.result() for job in jobs]

    def _for_student(self, uri: str, start_us: int, end_us: int, offset: int) -> Frames:
        """Frames of a window as the student sees them, (T, H, W, 3)."""
        span = self._window(start_us, end_us, offset, self._snapshot.num_frames)
        (clip,) = self._decoder.decode(uri, [span], self._frame_spec.view, self._spec.decode)
        return clip.frames_VTHWC[0]

    def for_both(self, uri: str, start_us: int, end_us: int, offset: int) -> tuple[Frames, Frames]:
        """As the teacher (V, T, H, W, 3) and as the student (T, H, W, 3) sees them, from one decoding."""
        span = self._window(start_us, end_us, offset, self._spec.clip.num_frames, self._snapshot.num_frames)
        (clip,) = self._decoder.decode(
            uri, [span], self._spec.view, self._spec.decode, also=[self._frame_spec.view]
        )
        return clip.frames_VTHWC, clip.also[0].frames_VTHWC[0]

    def _window(self, start_us: int, end_us: int, offset: int, *num_frames: int) -> ClipSpan:
        """The window that starts ``offset`` kept frames into a clip, with streams of so many frames."""
        length = self._spec.clip.length_us
        start = start_us + offset * length // self._snapshot.num_frames
        limit = end_us + (length if offset else 0)
        first, *also = (sample_times(start, limit, length, t) for t in num_frames)
        return ClipSpan(start, min(start + length, limit), first, tuple(also))


class OnlineLoader(VideoLoader):
    """Decodes each clip of a batch for the student and for the teacher at once, and asks the teacher."""

    def __init__(
        self, targets: TargetReader, frames: ShardStore, store: ShardStore, teacher: Teacher
    ) -> None:
        super().__init__(targets, frames, store)
        self._teacher, self._temperature = teacher, targets.temperature

    def look_up(self, rows_N: I64, offset_N: I64) -> Batch:
        """What the teacher says of windows that start so many frames into some rows' clips, at the temperature."""
        return self._look_up(0, rows_N, {}, offset_N)

    def _look_up(self, step: int, rows_N: I64, sheets: Mapping[int, bytes], offset_N: I64) -> Batch:
        pairs = self.decoded(rows_N, offset_N, self.for_both)
        logits_NK = self._teacher.logits([of_teacher for of_teacher, _ in pairs]).mean(axis=1)
        return Batch(
            step,
            np.stack([self._as_kept(of_student) for _, of_student in pairs]),
            softmax(logits_NK / np.float32(self._temperature)),
            self._snapshot.rows_R["label"][rows_N].astype(np.int64),
        )

    def _as_kept(self, frames_THWC: Frames) -> Frames:
        """Both arms see JPEGs."""
        return decode_sheet(encode_sheet(frames_THWC, self._frame_spec.quality), len(frames_THWC))


def _uris(store: ShardStore) -> dict[str, str]:
    return {
        row["video_id"]: row["uri"] for table in scan(store, ["video_id", "uri"]) for row in table.to_pylist()
    }
