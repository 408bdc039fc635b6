"""Calibrate: turn a wish into a policy, on videos that the student never trained on.

What is chosen is chosen on the validation split and on the calibration videos that the confidence heads were fitted on.
A guarantee is had from the other calibration videos, by which nothing else is chosen: the sequence of members that will
be tested hangs on none of them, and is written down before it is tested.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from jobs.selecting.calibration import open_calibration
from jobs.selecting.certified import guaranteed
from jobs.selecting.judged import StudentFolder, open_student
from pipeline.models.weights import fetch
from pipeline.select.calibrate import Chosen, choose
from pipeline.select.policies import bases_of
from pipeline.select.simulate import Outcome, Simulation
from pipeline.store.document import library_versions, now
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError
from schemas.policy import (
    BY_PASSAGE,
    AggregationName,
    CostFlags,
    Expected,
    PolicyDocument,
    PolicyKind,
    ScoreName,
    Wish,
)
from schemas.targets import TargetSpec

FOLDER = "policies"
METHOD = 2
"""Of choosing. Raised by hand when a change of ours makes other policies of the same wishes."""
TRIED: tuple[PolicyKind, ...] = ("clip-threshold", "video-threshold", "video-part")
_TRIED_TO_CERTIFY = TRIED[:2]
"""Of many candidates the most promising one is promising by chance, and only one is certified."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class CalibrateOptions:
    """Which policies are tried, and where things are."""

    kinds: tuple[PolicyKind, ...] = ()
    scores: tuple[ScoreName, ...] = get_args(ScoreName)
    aggregation: AggregationName | None = None
    passage: float | None = None
    name: str | None = None
    targets: str | None = None
    costs: CostFlags = field(default_factory=CostFlags)
    seed: int = 0
    overwrite: bool = False

    def tried(self) -> dict[str, Any]:
        """What tells one calibration from another, beside its wish."""
        return {
            "kinds": list(self.kinds),
            "scores": list(self.scores),
            "aggregation": self.aggregation,
            "passage": self.passage,
            "seed": self.seed,
            "method": METHOD,
        }


@dataclass(frozen=True)
class CalibrateReport:
    """The policy that was written, and what it came to on the videos that it was chosen on."""

    url: str
    document: PolicyDocument
    chosen_on: Outcome

    def to_json(self) -> dict[str, Any]:
        return {"path": self.url, **self.document.model_dump(mode="json")}


def calibrate(
    student_url: str, wish: Wish, options: CalibrateOptions = CalibrateOptions()
) -> CalibrateReport:
    """Choose a policy for a wish and write it into the student's folder.

    Raises
    ------
    SettingsError
        If there are no held-out videos, no policy meets the wish, there are too few groups for a guarantee, or a policy
        of that name was calibrated for something else and is not to be overwritten.
    """
    name = options.name or _name_of(wish)
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be a policy's name: letters, digits, dots and dashes are wanted"
        )
    student = open_student(student_url)
    if not options.overwrite:
        _check_name(student, name, wish, options)
    having = open_calibration(
        student, scores=options.scores, costs=options.costs, targets=options.targets, seed=options.seed
    )
    targets, temps, fit, sim = having.targets, having.temperatures, having.fit, having.sim
    tried = TRIED if wish.max_disagreement is None else _TRIED_TO_CERTIFY
    kinds = options.kinds or tried
    if options.passage is not None and (other := [k for k in kinds if k not in BY_PASSAGE]):
        raise SettingsError(f"--passage is for {', '.join(BY_PASSAGE)}, not for {', '.join(other)}")
    bases = bases_of(kinds, options.scores, options.passage, _stride(targets, options.passage))
    certificate = None
    if wish.max_disagreement is not None:
        chosen, certificate = guaranteed(having, bases, options.aggregation, wish, options.seed)
    else:
        chosen = choose(sim, bases, options.aggregation, wish)
    document = PolicyDocument(
        name=name,
        student=student.fingerprint,
        weights_sha256=student.about["weights_sha256"],
        program_sha256=fetch(f"{student.url}/student.pt2").sha256,
        frames=student.about["frames"]["fingerprint"],
        targets=targets.document.fingerprint,
        classes=tuple(student.about["classes"]),
        policy=chosen.spec,
        aggregation=chosen.aggregation,
        student_temperature=temps[0],
        teacher_temperature=temps[1],
        context=fit.heads if fit is not None and chosen.spec.in_context else None,
        wish=wish,
        tried=options.tried(),
        costs=sim.costs,
        expected=_expected(sim, chosen),
        certificate=certificate,
        made_at=now(),
        versions=library_versions(),
    )
    rel = f"{FOLDER}/{name}.json"
    student.files.put_over(rel, document.model_dump_json(indent=1).encode())
    return CalibrateReport(f"{student.url}/{rel}", document, chosen.outcome)


def _check_name(student: StudentFolder, name: str, wish: Wish, options: CalibrateOptions) -> None:
    """The same calibration may be made again; another one does not take its place unasked."""
    try:
        there = PolicyDocument.model_validate_json(student.files.read(f"{FOLDER}/{name}.json"))
    except FileNotFoundError:
        return
    except ValidationError as e:
        raise SettingsError(
            f"{student.url}/{FOLDER}/{name}.json is no policy: --overwrite replaces it"
        ) from e
    if there.wish != wish or there.tried not in (None, options.tried()):
        raise SettingsError(
            f"{student.url} has a policy {name!r} already, calibrated for another wish or among others: give this one "
            "a --name, or --overwrite that one"
        )


def _stride(targets: ShardStore, passage: float | None) -> float | None:
    """Seconds from clip to clip, where a passage wants to know."""
    if passage is None:
        return None
    clip = TargetSpec(**targets.document.spec).clip
    if clip.max_clips is not None:
        raise SettingsError(
            f"--passage wants all clips of a video, and of these targets there are {clip.max_clips} at most of each: "
            "they do not follow each other in long ones"
        )
    return clip.stride_seconds or clip.seconds


def _expected(sim: Simulation, chosen: Chosen) -> Expected:
    outcome = chosen.outcome

    def number(x: float) -> float | None:
        return None if math.isnan(x) else round(x, 6)

    return Expected(
        videos=sim.known.scores.num_videos,
        groups=len(np.unique(sim.known.group_V)),
        share=round(outcome.share, 6),
        ratio=round(outcome.ratio, 6),
        agreement=round(outcome.agreement.value, 6),
        accuracy=number(outcome.accuracy.value),
        gain=number(outcome.gain.value),
        gain_low=number(outcome.gain.low),
        optimism=None if chosen.optimism is None else number(chosen.optimism),
    )


def _name_of(wish: Wish) -> str:
    """What a policy is called where nobody said: by its wish."""
    for name in ("budget", "max_cost", "accuracy_drop", "max_disagreement"):
        if (value := getattr(wish, name)) is not None:
            return f"{name.replace('_', '-')}-{value:g}"
    raise AssertionError("a wish says something")
