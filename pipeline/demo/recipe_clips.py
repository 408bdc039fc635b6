"""The recipe's clips: an archive's videos, decoded once by the project's own decoder and kept as one array.

Training then reads pictures and never a video. Evaluation uses the clips that the pipeline itself would cut;
training takes them four times as densely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from pipeline.demo.archive import ArchiveSettings, plan_archive, processes, video_path
from pipeline.demo.motion import CLASSES
from pipeline.demo.plan import VideoPlan
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpec, clip_spans
from schemas.targets import DecodeSpec, ViewSpec

CLIP = ClipSpec(num_frames=8, seconds=2.0)
TRAINING_CLIP = ClipSpec(num_frames=8, seconds=2.0, stride_seconds=0.5)
VIEW = ViewSpec(width=64, height=64)
DECODE = DecodeSpec()


@dataclass(frozen=True, slots=True)
class ClipSet:
    """N clips: uint8 frames (N, T, H, W, 3), class numbers (N,), and the index of each one's video (N,)."""

    frames_NTHWC: np.ndarray
    labels_N: np.ndarray
    videos_N: np.ndarray

    def take(self, rows_M: np.ndarray) -> ClipSet:
        """The clips of the given rows."""
        return ClipSet(self.frames_NTHWC[rows_M], self.labels_N[rows_M], self.videos_N[rows_M])


def load_split(
    root: Path, num_videos: int, settings: ArchiveSettings, split: str, spec: ClipSpec, *, workers: int
) -> ClipSet:
    """The clips of one split of the archive at ``root``, decoded once and cached beside its manifest.

    Raises
    ------
    VideoError
        If a file cannot be decoded: then the archive is damaged.
    """
    plans = [p for p in islice(plan_archive(settings), num_videos) if p.split == split]
    cache = root / "clips" / f"{split}-{len(plans)}-{spec.stride_us}us.npz"
    if not cache.exists():
        cache.parent.mkdir(exist_ok=True)
        clips = _decode_all(root, plans, spec, workers)
        partial = cache.with_name(cache.name + ".part")
        with partial.open("wb") as file:
            np.savez(file, frames=clips.frames_NTHWC, labels=clips.labels_N, videos=clips.videos_N)
        partial.replace(cache)
    with np.load(cache) as stored:
        return ClipSet(stored["frames"], stored["labels"], stored["videos"])


def _decode_all(root: Path, plans: Sequence[VideoPlan], spec: ClipSpec, workers: int) -> ClipSet:
    with processes(workers) as pool:
        parts = list(pool.map(_decode_video, repeat(root), plans, repeat(spec), chunksize=8))
    counts = [len(part) for part in parts]
    return ClipSet(
        np.concatenate(parts),
        np.repeat([CLASSES.index(p.label) for p in plans], counts),
        np.repeat([p.index for p in plans], counts),
    )


def _decode_video(root: Path, plan: VideoPlan, spec: ClipSpec) -> np.ndarray:
    """uint8 (clips, T, H, W, 3) of one video."""
    end_us = int(plan.times_us()[-1]) + 1_000_000 // plan.encoding.rate
    spans = clip_spans(0, end_us, spec)
    decoded = PyAVDecoder().decode(str(video_path(root, plan)), spans, VIEW, DECODE)
    return np.stack([clip.frames_VTHWC[0] for clip in decoded])
