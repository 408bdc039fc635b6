"""References to models: enough to build one anywhere, and to know it again by its fingerprint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, field_validator

from schemas.spec import Spec, json_object


class InputSpec(Spec):
    """The tensor a model wants: ``(frames / scale - mean) / std`` in the given layout."""

    layout: Literal["NCTHW", "NTCHW", "frames"] = "NCTHW"
    """Order of the axes: batch N, colour C, time T, height H, width W. 'frames' is for image models: each
    frame is one input (N*T, C, H, W) and the logits are averaged over time."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from each colour, after division by the scale."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divided by, for each colour."""
    scale: float = Field(255.0, gt=0)
    """What the 8-bit colours are divided by first."""

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError(f"std must be above 0 in every colour, got {std}")
        return std


class ModelRef(Spec):
    """Names a model: who builds it, with which weights, from which input.

    After `pipeline.models.resolve` the fields ``code`` and ``weights_sha256`` are filled, and only then
    does the reference say which numbers will come out.
    """

    factory: str = Field(min_length=1)
    """Who builds it: 'package.module:function', 'path/to/file.py:function', a torch.export file
    ('model.pt2'), or 'torchvision:NAME', 'timm:NAME', 'transformers:NAME' where those are installed."""
    kwargs: Annotated[dict[str, Any], BeforeValidator(json_object), Parameter(accepts_keys=False)] = Field(
        default_factory=dict
    )
    """Arguments of the factory, as a JSON object."""
    weights: str | None = None
    """Path or URL of the weights (.safetensors, or a .pt file that loads with weights_only=True); where not
    given, the factory brings its own."""
    weights_sha256: str | None = Field(None, pattern=r"^(state:)?[0-9a-f]{64}$")
    """Expected SHA-256 of the weights file; checked where given, recorded always."""
    num_classes: int | None = Field(None, ge=1)
    """Number of classes; checked where given, recorded always."""
    classes: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Class names in the order of the logits. Names alone never change the fingerprint."""
    input: InputSpec = InputSpec()
    """What the model wants to be fed."""
    trained_on: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Splits of the manifest that it was trained on, whose rows say nothing of its confidence. Never changes the
    fingerprint."""
    code: Annotated[str | None, Parameter(show=False)] = None
    """Filled in by Locum: version of the package, or hash of the source file, that builds the model."""

    @field_validator("classes")
    @classmethod
    def _unique(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({c for c in classes if classes.count(c) > 1})
        if twice:
            raise ValueError(f"class names must be unique; twice: {twice[:5]}")
        return classes

    def identity(self) -> dict[str, Any]:
        """What of the reference determines the logits.

        Where files lie and what the classes are called does not: of a factory in a file the function's name counts,
        and of a torch.export file nothing, for ``code`` holds the hash of the file.
        """
        body = self.model_dump(mode="json", exclude={"weights", "classes", "trained_on"})
        place, _, function = self.factory.rpartition(":")
        if self.factory.endswith(".pt2"):
            body["factory"] = "pt2"
        elif place.endswith(".py"):
            body["factory"] = f"file:{function}"
        return body
