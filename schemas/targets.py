"""Teacher targets: what is asked for, its fingerprint, and the table that answers."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from schemas.clip import ClipSpec
from schemas.model import ModelRef
from schemas.spec import Spec, fingerprint_of

NUMERICS_EPOCH = 1
"""Raised by hand when a library or a change of ours moves pixels or scores by more than rounding."""

TOP_K_TEMPERATURES = (1, 2, 4)


class ViewSpec(Spec):
    """How a source frame becomes a square or oblong picture, and how many pictures are taken of it."""

    width: int = Field(112, ge=8, le=4096)
    """Width of the model's input in pixels."""
    height: int = Field(112, ge=8, le=4096)
    """Height of the model's input in pixels."""
    fit: Literal["squash", "crop"] = "squash"
    """'squash' the whole frame into the size, or scale until it is covered and 'crop' the middle."""
    crops: Literal["center", "three"] = "center"
    """With fit=crop: the middle alone, or the three crops along the longer side, as three views."""
    flip: bool = False
    """Add the mirror image of each view."""

    @model_validator(mode="after")
    def _crops_need_crop(self) -> ViewSpec:
        if self.crops == "three" and self.fit != "crop":
            raise ValueError("crops='three' needs fit='crop': a squashed frame has nothing beside it")
        return self

    @property
    def num_views(self) -> int:
        return (3 if self.crops == "three" else 1) * (2 if self.flip else 1)


class DecodeSpec(Spec):
    """Who decodes, and how frames are scaled. Changes pixels, so it is part of the fingerprint."""

    backend: Literal["pyav", "decord", "torchcodec"] = "pyav"
    """The decoder. 'pyav' is exact on every file it was tried on; 'decord' and 'torchcodec' (an extra) refuse the files
    that they are known to be wrong about."""
    interpolation: Literal["bilinear", "bicubic", "area", "fast_bilinear"] = "bilinear"
    """Scaling algorithm."""
    key_frames: bool = False
    """Decode keyframes alone: each sample shows the last one before it. Much cheaper where they are rare, and then too
    few to show motion. With 'pyav' only."""

    @model_validator(mode="after")
    def _key_frames_need_pyav(self) -> DecodeSpec:
        if self.key_frames and self.backend != "pyav":
            raise ValueError(f"key_frames needs the backend 'pyav', not {self.backend!r}")
        return self


class LogitsSpec(Spec):
    """How logits are kept."""

    dtype: Literal["float16", "float32"] = "float16"
    """Stored precision; float32 for readers that cannot read float16. Uncertainties are always computed
    from float32 logits, before the cast."""
    top_k: int = Field(0, ge=0)
    """Keep only the k largest logits, with the log-sum-exp of all at T = 1, 2 and 4; 0 keeps all."""


class TargetSpec(Spec):
    """All that determines a teacher's targets."""

    teacher: ModelRef
    """The teacher."""
    clip: ClipSpec = ClipSpec()
    """Clips and the frames in them."""
    view: ViewSpec = ViewSpec()
    """The picture the teacher sees."""
    decode: DecodeSpec = DecodeSpec()
    """The decoder."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the model. bf16 is 3-5 times faster where the hardware has it."""
    channels_last: bool = True
    """Keep tensors with the colours innermost, which convolutions prefer."""
    passes: int = Field(1, ge=1, le=256)
    """Stochastic passes (MC dropout: dropout layers stay active); 1 is the plain, deterministic model."""
    seed: int = Field(0, ge=0)
    """Seed of the stochastic passes."""
    logits: LogitsSpec = LogitsSpec()
    """How logits are kept."""

    @property
    def num_samples(self) -> int:
        """Logit vectors behind each row: views times passes."""
        return self.view.num_views * self.passes

    def fingerprint(self) -> str:
        """32 hex digits of all that determines the stored logits, and of nothing else.

        Raises
        ------
        ValueError
            If the teacher has not been resolved: weights and code must be known.
        """
        teacher = self.teacher
        if teacher.weights_sha256 is None or teacher.code is None or teacher.num_classes is None:
            raise ValueError("the fingerprint needs a resolved teacher: call pipeline.models.resolve first")
        body: dict[str, Any] = self.model_dump(mode="json", exclude={"teacher"})
        body["clip"]["stride_seconds"] = self.clip.stride_us / 1e6
        if self.passes == 1:
            body.pop("seed")
        return fingerprint_of(
            {"kind": "targets", "epoch": NUMERICS_EPOCH, "teacher": teacher.identity(), **body}
        )

    def table_schema(self) -> pa.Schema:
        """Arrow schema of the target table."""
        return target_schema(
            self.teacher.num_classes or 0,
            dtype=self.logits.dtype,
            top_k=self.logits.top_k,
            with_mutual_information=self.num_samples > 1,
        )


UNCERTAINTY_COLUMNS = ("msp", "margin", "entropy", "energy", "temporal_jsd")


def target_schema(
    num_classes: int, *, dtype: str = "float16", top_k: int = 0, with_mutual_information: bool = False
) -> pa.Schema:
    """Schema of ``data/*.parquet`` in a target store, for ``num_classes`` classes."""
    value = pa.float16() if dtype == "float16" else pa.float32()
    f32 = pa.float32()
    fields = [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("start_us", pa.int64(), nullable=False),
        pa.field("end_us", pa.int64(), nullable=False),
    ]
    if top_k:
        k = min(top_k, num_classes)
        fields += [
            pa.field(
                "topk_class", pa.list_(pa.field("element", pa.int32(), nullable=False), k), nullable=False
            ),
            pa.field("topk_logits", pa.list_(pa.field("element", value, nullable=False), k), nullable=False),
        ]
        fields += [pa.field(f"lse_t{t}", f32, nullable=False) for t in TOP_K_TEMPERATURES]
    else:
        fields.append(
            pa.field(
                "logits", pa.list_(pa.field("element", value, nullable=False), num_classes), nullable=False
            )
        )
    fields.append(pa.field("top1", pa.int32(), nullable=False))
    fields += [pa.field(name, f32, nullable=name == "temporal_jsd") for name in UNCERTAINTY_COLUMNS]
    if with_mutual_information:
        fields.append(pa.field("mutual_information", f32, nullable=False))
    fields += [
        pa.field("decode_ms", f32, nullable=False),
        pa.field("teacher_ms", f32, nullable=False),
        pa.field("damaged", pa.bool_(), nullable=False),
    ]
    return pa.schema(fields)
