"""A student learns from JPEGs and is used on decoded frames: how much of what it says hangs on that, by quality.

Reads the exported student alone, as it would be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.distill_arms.online import OnlineLoader
from bench.distill_arms.residual import kl
from pipeline.distill.snapshot import Snapshot
from pipeline.sheets import decode_sheet, encode_sheet
from pipeline.uncertainty import softmax
from schemas.arrays import I64

QUALITIES = (30, 50, 70, 80, 90, 95)
_BATCH = 32


def fidelity(snapshot: Snapshot, online: OnlineLoader, student: Path, rows_N: I64) -> list[str]:
    """For each quality: bytes a clip, share of clips of the same first class, and divergence from decoded frames."""
    nothing = np.zeros(len(rows_N), np.int64)
    clips = [
        of_student
        for i in range(0, len(rows_N), _BATCH)
        for _, of_student in online.decoded(rows_N[i : i + _BATCH], nothing[i : i + _BATCH], online.for_both)
    ]
    model = torch.export.load(student / "student.pt2").module()

    def probs(frames: list[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            parts = [
                model(torch.from_numpy(np.stack(frames[i : i + _BATCH])))[0].numpy()
                for i in range(0, len(frames), _BATCH)
            ]
        return softmax(np.concatenate(parts)).astype(np.float64)

    plain_NK = probs(clips)
    lines = [f"{len(clips)} clips of {snapshot.num_frames} frames; against decoded frames:"]
    lines.append(f"  {'quality':>8s} {'bytes':>7s} {'same class':>11s} {'KL':>8s}")
    for quality in QUALITIES:
        sheets = [encode_sheet(clip, quality) for clip in clips]
        kept_NK = probs([decode_sheet(s, len(c)) for s, c in zip(sheets, clips, strict=True)])
        same = float((kept_NK.argmax(1) == plain_NK.argmax(1)).mean())
        size = np.mean([len(s) for s in sheets])
        lines.append(f"  {quality:8d} {size:7.0f} {same:11.4f} {kl(plain_NK, kept_NK).mean():8.5f}")
    return lines
