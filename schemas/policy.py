"""Selective inference: what things cost, and how a video is divided between student and teacher."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter
from pydantic import Field, model_validator

from schemas.context import ContextHeads
from schemas.spec import Spec


class CostSpec(Spec):
    """What things cost: seconds of the device that each runs on, and the price of an hour of each device.

    The defaults are those of a small teacher on one CPU core and say nothing of yours."""

    open: float = Field(0.01, ge=0)
    """Seconds to open a video and find its clips' first frames."""
    decode: float = Field(0.03, ge=0)
    """Seconds to decode a second of video."""
    key_frame_distance: float = Field(2.0, gt=0)
    """Seconds between keyframes: decoding starts at the last one before a clip."""
    student_decode: float | None = Field(None, ge=0)
    """Seconds to decode a second of video for the student alone (keyframes only), where it is decoded a second time for
    the teacher. Not given: both see frames of one decoding."""
    seek: bool = False
    """Decode only what is looked at. `locum label` decodes every clip of every video, whoever is asked."""
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


class CostFlags(Spec):
    """What things cost, where it is not to be measured: see `CostSpec`."""

    open: float | None = Field(None, ge=0)
    """Seconds to open a video and find its clips' first frames. Measured with decoding where not given."""
    decode: float | None = Field(None, ge=0)
    """Seconds to decode a second of video. As it was for the targets, where not given."""
    key_frame_distance: float = Field(2.0, gt=0)
    """Seconds between keyframes: decoding starts at the last one before a clip."""
    student_decode: float | None = Field(None, ge=0)
    """Seconds to decode a second of video for the student alone (keyframes only), where it is decoded a second time for
    the teacher. Not given: both see frames of one decoding."""
    seek: bool = False
    """Decode only what is looked at. `locum label` decodes every clip of every video, whoever is asked."""
    student: float | None = Field(None, ge=0)
    """Seconds of the student for a clip: its view, and the network. As measured on this machine, where not given."""
    teacher: float | None = Field(None, ge=0)
    """Seconds of the teacher for a clip. As it was for the targets, where not given."""
    decode_price: float = Field(0.0, ge=0)
    """Price of an hour of decoding."""
    student_price: float = Field(0.0, ge=0)
    """Price of an hour of the student's device."""
    teacher_price: float = Field(0.0, ge=0)
    """Price of an hour of the teacher's device."""


class PriceFlags(Spec):
    """What an hour of each device costs, in whatever currency."""

    decode: float | None = Field(None, ge=0)
    """Of decoding."""
    student: float | None = Field(None, ge=0)
    """Of the student's device."""
    teacher: float | None = Field(None, ge=0)
    """Of the teacher's device."""


PolicyKind = Literal[
    "student-alone",
    "dense",
    "clip-threshold",
    "video-threshold",
    "video-part",
    "top-k",
    "uniform-k",
    "random-k",
    "budget",
    "coarse-to-fine",
]
ScoreName = Literal[
    "msp",
    "margin",
    "entropy",
    "confidence",
    "gain",
    "teacher",
    "confidence-in-context",
    "gain-in-context",
    "teacher-in-context",
    "video-in-context",
]
AggregationName = Literal[
    "replace-mean", "confidence-weighted", "teacher-only", "log-pool", "control-variate"
]

SCORES: tuple[str, ...] = get_args(ScoreName)
IN_CONTEXT = "-in-context"
"""How scores end that say what the student's words on a whole video say of a clip."""
AGGREGATIONS: tuple[str, ...] = get_args(AggregationName)

_WANTS = {
    "clip-threshold": ("threshold",),
    "video-threshold": ("threshold",),
    "video-part": ("threshold", "part"),
    "top-k": ("k",),
    "uniform-k": ("k",),
    "random-k": ("k",),
    "budget": ("share",),
    "coarse-to-fine": ("strides", "exit_margin"),
}


BY_PASSAGE = ("clip-threshold", "video-threshold", "video-part", "top-k")
"""Kinds that can decide by passages of a video as they do by videos."""


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
    part: float | None = Field(None, gt=0, le=1)
    """With 'video-part': so much of the clips of a video in doubt, those with the highest chance that the teacher is
    right."""
    price: float = Field(0.5, ge=0, le=1)
    """With 'video-part': a video's doubt is divided by this power of the number of clips that would be asked about."""
    passage: float | None = Field(None, gt=0)
    """Seconds: longer videos are decided on by passages of so much at most, of clips that follow each other."""
    stride: float | None = Field(None, gt=0)
    """With a passage: seconds from the start of one clip to that of the next; where it is more, another begins."""
    seed: int = Field(0, ge=0)
    """Of what is drawn."""
    with_student: bool = False
    """With 'random-k': the student looks at all clips, as a control variate wants it."""

    def identity(self) -> dict[str, Any]:
        """What fingerprints are made of: without what a policy that decides by videos did not have before."""
        body = self.model_dump(mode="json")
        return (
            body
            if self.passage is not None
            else {k: v for k, v in body.items() if k not in ("passage", "stride")}
        )

    @property
    def in_context(self) -> bool:
        """Whether its score is of a clip in its video."""
        return self.score.endswith(IN_CONTEXT)

    @model_validator(mode="after")
    def _has_what_its_kind_wants(self) -> PolicySpec:
        for name in _WANTS.get(self.kind, ()):
            if getattr(self, name) in (None, ()):
                raise ValueError(f"a policy {self.kind!r} wants {name!r}")
        if (self.passage is None) != (self.stride is None):
            raise ValueError("a passage wants the stride of the clips, and the other way round")
        if self.passage is not None and self.kind not in BY_PASSAGE:
            raise ValueError(
                f"a policy {self.kind!r} does not decide by passages: {', '.join(BY_PASSAGE)} do"
            )
        if list(self.strides) != sorted(set(self.strides), reverse=True) or min(self.strides, default=1) < 1:
            raise ValueError(f"strides fall, and are 1 or more: {list(self.strides)}")
        return self


class Choice(Spec):
    """What an exact budget chose among the clips of a generation: those that stand no later than the last one chosen,
    by falling score, video id and start."""

    share: float
    clips: int
    """Clips with a score when it was chosen."""
    chosen: int
    score: float | None = None
    """That of the last clip chosen; None where none was."""
    video_id: str = ""
    start_us: int = 0


class Wish(Spec):
    """What a policy is to come to; one of them is said."""

    budget: float | None = Field(None, ge=0, le=1)
    """The teacher looks at no more than this share of the clips."""
    max_cost: float | None = Field(None, gt=0, le=1)
    """All costs no more than this share of what the dense teacher would."""
    accuracy_drop: float | None = Field(None, ge=0, lt=1)
    """The accuracy of videos is no more than so much below the dense teacher's, by the estimate and what chance may
    have had in it."""
    max_disagreement: float | None = Field(None, gt=0, lt=1)
    """Guaranteed: no more than this share of videos gets another label than the dense teacher would give."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the guarantee: the chance that the calibration videos do not mislead."""

    @model_validator(mode="after")
    def _is_one(self) -> Wish:
        names = ("budget", "max_cost", "accuracy_drop", "max_disagreement")
        said = [name for name in names if getattr(self, name) is not None]
        if len(said) != 1:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            raise ValueError(f"say one of {flags}")
        return self


class Certificate(Spec):
    """That no more than ``alpha`` of videos get another label than the dense teacher's, with confidence ``1 - delta``
    over the draw of the calibration groups."""

    alpha: float
    delta: float
    look: int
    """Which look at these groups it is; a later one is tested at half the delta of the one before."""
    tested_at: float
    """The level of this look."""
    spent: float
    """The levels of this look and those before, together: with all their certificates at once one is wrong with this
    chance at most, if no sequence was chosen by what an earlier look said."""
    groups: int
    named_groups: int
    """How many of the groups have names; each other one is a file."""
    losses: int
    """Groups, of one video each, in which the policy said something else than the dense teacher."""
    p_value: float
    member: int
    """Place in the sequence, which was written before the groups were looked at."""
    members: int
    sequence: str
    """Digest of the sequence."""
    left_out: dict[str, int]
    """Videos of the calibration split that could not be used, by reason."""
    holds_for: str
    """Of what it is said."""
    void_if: tuple[str, ...]
    """What makes it void."""


class Expected(Spec):
    """What a policy came to on the videos that it was chosen on."""

    videos: int
    groups: int
    share: float
    ratio: float
    agreement: float
    accuracy: float | None
    gain: float | None
    gain_low: float | None
    optimism: float | None = None
    """How much more accuracy such a choice promised than it came to on videos drawn anew (a bootstrap over groups): as
    much at least was asked beyond the wish."""


class PolicyDocument(Spec):
    """A calibrated policy: the file that `locum label` reads."""

    name: str
    student: str
    """Fingerprint."""
    weights_sha256: str
    program_sha256: str
    """Of the exported student."""
    frames: str
    """Fingerprint of the student's view."""
    targets: str
    """Fingerprint of the teacher's targets."""
    classes: tuple[str, ...]
    policy: PolicySpec
    aggregation: AggregationName
    student_temperature: float
    teacher_temperature: float
    context: ContextHeads | None = None
    """What a score in context comes from, where the policy goes by one."""
    wish: Wish
    tried: dict[str, Any] | None = None
    """Kinds, scores, aggregation, passage and seed that it was chosen among or with."""
    costs: CostSpec
    expected: Expected
    certificate: Certificate | None = None
    made_at: str
    versions: dict[str, str]
