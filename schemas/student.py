"""Students: those that go by a name, and how one is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, model_validator

from schemas.model import InputSpec, ModelRef
from schemas.spec import Spec, fingerprint_of, json_object

Names = Annotated[dict[str, str], BeforeValidator(json_object), Parameter(accepts_keys=False)]
Arguments = Annotated[dict[str, Any], BeforeValidator(json_object), Parameter(accepts_keys=False)]

TRAINING_EPOCH = 4
"""Raised by hand when a change of ours (losses, order, splits, heads) makes other students of the same settings."""

_COLOURS = InputSpec(mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))

STUDENTS: dict[str, ModelRef] = {
    "tiny": ModelRef(
        factory="pipeline.models.small3d:build", kwargs={"width": 8, "motion_first": True}, input=_COLOURS
    ),
    "small": ModelRef(
        factory="pipeline.models.small3d:build", kwargs={"width": 16, "motion_first": True}, input=_COLOURS
    ),
    "frames": ModelRef(factory="pipeline.models.frame_student:build", input=_COLOURS),
    "lite": ModelRef(
        factory="pipeline.models.frame_student:build",
        kwargs={"backbone": "efficientnet-lite0"},
        input=InputSpec(scale=128.0, mean=(0.9921875, 0.9921875, 0.9921875)),
    ),
}
"""Two (2+1)D networks; and two that look at frames one by one and at their order, the last one with image weights."""


class TrainSpec(Spec):
    """How a student is trained; with the targets and frames, all that determines its weights."""

    student: str = "frames"
    """The student: 'tiny', 'small', 'frames', 'lite', or who builds it: 'package.module:function',
    'path/to/file.py:function', 'torchvision:NAME', ... A factory is told ``num_classes``, where it takes that."""
    student_kwargs: Arguments = Field(default_factory=dict)
    """Arguments of its factory, beside or instead of those that go with its name: a JSON object."""
    student_weights: str | None = None
    """Path or URL of weights to start from."""
    student_input: InputSpec | None = None
    """What it wants to be fed, where its name does not say so."""
    epochs: int = Field(30, ge=1)
    """Times that every clip of the training split is seen."""
    batch_size: int = Field(32, ge=2)
    """Clips a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Highest learning rate, of AdamW; it rises over the first tenth of the steps and falls along half a cosine."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay, of weights with more than one axis."""
    clip_norm: float = Field(1.0, gt=0)
    """Longest gradient."""
    temperature: float = Field(2.0, gt=0)
    """Of the distillation loss. Top-k targets are known at 1, 2 and 4 only."""
    label_weight: float = Field(0.3, ge=0, le=1)
    """Share of the cross-entropy with the label in the loss of a clip that has one; the rest is the teacher's. 1
    learns from labels alone."""
    classes: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Names of the teacher's classes, in order, where its own reference has none."""
    label_map: Names = Field(default_factory=dict)
    """Which class a label of the manifest is, where they are not called alike: a JSON object."""
    split_map: Names = Field(default_factory=dict)
    """Which of train, val, calibration and test a split is, where it is called otherwise: a JSON object."""
    folds: int = Field(0, ge=0, le=100)
    """Cross-fitting, for small sets: deal the groups to so many folds, whatever their splits; one is the test."""
    fold: int = Field(0, ge=0)
    """Which of the folds is the test, 0 to folds - 1; a run of each gives predictions of all clips."""
    use_labels: bool = True
    """Learn from labels, and judge by them. Without them the teacher is taken at its word."""
    teacher_trained_on: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Splits that the teacher was trained on, if its own reference does not say so: nothing is calibrated there."""
    heads_share: float = Field(0.5, gt=0, le=1)
    """Share of the calibration split's groups on which the confidence heads are fitted. The rest is for thresholds and
    guarantees, which need videos that nothing was fitted on; 1 where none are wanted."""
    multi_label: bool = False
    """Each class is a coin of its own (sigmoid), as with teachers that were trained so."""
    teacher_weights: tuple[float, ...] = ()
    """Weights of several teachers in their mean; all alike where not given."""
    overlapping: Literal["all", "one"] = "all"
    """Of clips that overlap (targets with a stride shorter than the clip), what an epoch shows: 'all', or 'one' of each
    stretch of a clip's length, another in each epoch, for the steps that clips without overlap would take."""
    shift: bool = False
    """Also show windows that start in one clip and end in the next, with the mean of both targets. That mean is far
    from what the teacher would say of such a window: it cost more than it gave where it was measured."""
    mirror: Names | None = None
    """Mirror half of the clips. A JSON object says which class becomes which; {} that none changes. Not given: no
    mirror."""
    final_epochs: int = Field(2, ge=0)
    """Epochs at the end, at a tenth of the learning rate, that make the student sure where it is right and flat
    where it is wrong."""
    patience: int | None = Field(None, ge=1)
    """Stop when the held-out loss has not fallen for so many epochs. The best weights are kept in any case."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    seed: int = Field(0, ge=0)
    """Of the weights, the order, the augmentation and dropout."""

    @model_validator(mode="after")
    def _label_weight_fits(self) -> TrainSpec:
        if self.multi_label and self.label_weight:
            raise ValueError("a multi-label student learns from targets alone: say --label-weight 0")
        if self.folds == 1 or (self.fold and self.fold >= self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} folds: 2 or more, counted from 0")
        return self

    def student_ref(self) -> ModelRef:
        """The student as a reference, not resolved yet."""
        known = STUDENTS.get(self.student) or ModelRef(factory=self.student)
        return known.model_copy(
            update={
                "kwargs": {**known.kwargs, **self.student_kwargs},
                "weights": self.student_weights,
                "input": self.student_input or known.input,
            }
        )

    def fingerprint(self, student: ModelRef, initial: str, digest: str) -> str:
        """32 hex digits of what determines the weights: how, who (with code, and a digest of the ``initial`` weights),
        and the snapshot that is learnt from."""
        names = {name for name in TrainSpec.model_fields if name.startswith("student")}
        body: dict[str, Any] = self.model_dump(mode="json", exclude=names)
        return fingerprint_of(
            {
                "kind": "student",
                "epoch": TRAINING_EPOCH,
                "student": student.identity(),
                "initial": initial,
                "snapshot": digest,
                **body,
            }
        )
