"""Confidence in context: how likely student and teacher are right about a clip, by all that the student says of its
video. Numbers that are fitted while a policy is calibrated, and go with it."""

from __future__ import annotations

from pydantic import model_validator

from schemas.spec import Spec

CONTEXT_EPOCH = 1
"""Raised by hand when inputs of `pipeline.select.context` mean something else."""


class ContextHead(Spec):
    """An additive logistic regression: of each input, in units of its spread, a line that bends at two knots."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    knots: tuple[tuple[float, float], ...]
    slopes: tuple[tuple[float, float, float], ...]
    """Of the input, and of what of it is above each knot."""
    offset: float

    @model_validator(mode="after")
    def _fits_together(self) -> ContextHead:
        if len({len(x) for x in (self.mean, self.std, self.knots, self.slopes)}) != 1:
            raise ValueError("the parts of a head are of different numbers of inputs")
        return self


class ContextHeads(Spec):
    """How likely student and teacher are right about a clip, and the student's word on its video is."""

    student: ContextHead
    teacher: ContextHead
    video: ContextHead
    clips: int
    """Clips that they were fitted on."""
    epoch: int = CONTEXT_EPOCH

    @model_validator(mode="after")
    def _of_these_inputs(self) -> ContextHeads:
        if self.epoch != CONTEXT_EPOCH:
            raise ValueError(
                f"heads in context of epoch {self.epoch} go by other inputs than today's ({CONTEXT_EPOCH}): "
                "calibrate anew"
            )
        return self
