"""Kept frames: a student's view of every clip, small and encoded, so that training never decodes video again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from schemas.clip import ClipSpec
from schemas.spec import Spec, fingerprint_of
from schemas.targets import NUMERICS_EPOCH, DecodeSpec, TargetSpec, ViewSpec

MAX_SHEET_PIXELS = 65_500
"""What JPEG allows of a side."""


class KeepSpec(Spec):
    """Which frames of each clip are kept, and how."""

    num_frames: int = Field(8, ge=1, le=1024)
    """Frames kept of each clip, evenly in time."""
    width: int = Field(64, ge=8, le=1024)
    """Width in pixels."""
    height: int = Field(64, ge=8, le=1024)
    """Height in pixels."""
    quality: int = Field(90, ge=1, le=100)
    """Quality of the JPEGs; colours are kept at full resolution."""
    key_frames: bool = False
    """Decode keyframes alone: each kept frame is the last one before its time. Much cheaper where they are rare, and
    then too few to show motion."""

    @model_validator(mode="after")
    def _fits_a_sheet(self) -> KeepSpec:
        if self.num_frames * self.height > MAX_SHEET_PIXELS:
            raise ValueError(
                f"{self.num_frames} frames of {self.height} pixels are {self.num_frames * self.height} high, and a "
                f"JPEG is {MAX_SHEET_PIXELS} at most"
            )
        return self


class FrameSpec(Spec):
    """All that determines the kept frames of a clip."""

    clip: ClipSpec
    """The clips, those of the targets, and the number of frames that is kept of each."""
    view: ViewSpec
    """What is kept of a frame."""
    decode: DecodeSpec = DecodeSpec()
    """The decoder."""
    quality: int = Field(90, ge=1, le=100)
    """Quality of the JPEGs."""

    @classmethod
    def of(cls, targets: TargetSpec, keep: KeepSpec) -> FrameSpec:
        """What is kept of the clips of ``targets``: of the same part of the picture as the teacher sees, less its crops
        along a side and its mirror images."""
        clip = targets.clip.model_copy(update={"num_frames": keep.num_frames})
        view = ViewSpec(width=keep.width, height=keep.height, fit=targets.view.fit)
        decode = targets.decode
        if keep.key_frames:
            decode = DecodeSpec(interpolation=decode.interpolation, key_frames=True)
        return cls(clip=clip, view=view, decode=decode, quality=keep.quality)

    def fingerprint(self) -> str:
        """32 hex digits of all that determines the kept frames, and of nothing else."""
        body: dict[str, Any] = self.model_dump(mode="json")
        body["clip"]["stride_seconds"] = self.clip.stride_us / 1e6
        return fingerprint_of({"kind": "frames", "epoch": NUMERICS_EPOCH, **body})


FRAMES_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("start_us", pa.int64(), nullable=False),
        pa.field("end_us", pa.int64(), nullable=False),
        pa.field("sheet", pa.binary(), nullable=False),
        pa.field("damaged", pa.bool_(), nullable=False),
    ]
)
"""One clip a row. ``sheet`` is one JPEG of the clip's frames, the first on top."""
