"""Selective inference: what things cost, and how a video is divided between student and teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from schemas.spec import Spec


class CostSpec(Spec):
    """What things cost: seconds of the device that each runs on, and the price of an hour of each device.

    The defaults are those of a small teacher on one CPU core and say nothing of yours: give measured ones."""

    open: float = Field(0.01, ge=0)
    """Seconds to open a video and find its clips' first frames."""
    decode: float = Field(0.03, ge=0)
    """Seconds to decode a second of video."""
    key_frame_distance: float = Field(2.0, gt=0)
    """Seconds between keyframes: decoding starts at the last one before a clip."""
    student_decode: float | None = Field(None, ge=0)
    """Seconds to decode a second of video for the student alone (keyframes only), where it is decoded a second time for
    the teacher. Not given: both see frames of one decoding."""
    student: float = Field(0.005, ge=0)
    """Seconds of the student for a clip: its view, and the network."""
    teacher: float = Field(0.05, ge=0)
    """Seconds of the teacher for a clip: its view, and the network."""
    decode_price: float = Field(0.0, ge=0)
    """Price of an hour of decoding."""
    student_price: float = Field(0.0, ge=0)
    """Price of an hour of the student's device."""
    teacher_price: float = Field(0.0, ge=0)
    """Price of an hour of the teacher's device."""


PolicyKind = Literal[
    "student-alone",
    "dense",
    "clip-threshold",
    "video-threshold",
    "top-k",
    "uniform-k",
    "random-k",
    "budget",
    "coarse-to-fine",
]
ScoreName = Literal["msp", "margin", "entropy", "confidence", "gain", "teacher"]
AggregationName = Literal[
    "replace-mean", "confidence-weighted", "teacher-only", "log-pool", "control-variate"
]

_WANTS = {
    "clip-threshold": ("threshold",),
    "video-threshold": ("threshold",),
    "top-k": ("k",),
    "uniform-k": ("k",),
    "random-k": ("k",),
    "budget": ("share",),
    "coarse-to-fine": ("strides", "exit_margin"),
}


class PolicySpec(Spec):
    """Which clips the student and the teacher are asked about."""

    kind: PolicyKind
    """The rule; see `pipeline.select`."""
    score: ScoreName = "gain"
    """What says how much a clip wants the teacher."""
    threshold: float | None = None
    """The score above which the teacher is asked; not given with 'top-k' and 'coarse-to-fine': whatever the score."""
    k: int | None = Field(None, ge=1)
    """So many clips of each video."""
    share: float | None = Field(None, ge=0, le=1)
    """So much of all clips."""
    strides: Annotated[tuple[int, ...], Parameter(negative=())] = ()
    """The student looks at every so-many-th clip of a video, then at more of them: 4 2 1."""
    exit_margin: float | None = Field(None, ge=0, le=1)
    """A video is done when its first class leads by so much."""
    seed: int = Field(0, ge=0)
    """Of what is drawn."""

    @model_validator(mode="after")
    def _has_what_its_kind_wants(self) -> PolicySpec:
        for name in _WANTS.get(self.kind, ()):
            if getattr(self, name) in (None, ()):
                raise ValueError(f"a policy {self.kind!r} wants {name!r}")
        if list(self.strides) != sorted(set(self.strides), reverse=True) or min(self.strides, default=1) < 1:
            raise ValueError(f"strides fall, and are 1 or more: {list(self.strides)}")
        return self
