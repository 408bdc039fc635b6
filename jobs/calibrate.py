"""Calibrate: turn a wish into a policy, on videos that the student never trained on.

What is chosen is chosen on the validation split and on the calibration videos that the confidence heads were fitted on.
A guarantee is had from the other calibration videos, by which nothing else is chosen: the sequence of members that will
be tested hangs on none of them, and is written down before it is tested.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args
from uuid import uuid4

import numpy as np
from pydantic import ValidationError

from jobs.selecting.costs import costs_of
from jobs.selecting.judged import StudentFolder, judged, open_student, targets_of, temperatures, to_choose_on
from pipeline.distill.splits import Role, role_of
from pipeline.known import videos_in_force
from pipeline.models.weights import fetch
from pipeline.plan import video_clips
from pipeline.select.calibrate import Chosen, certify, check_groups, choose, sequence_of
from pipeline.select.context_fit import ContextFit
from pipeline.select.decision import Decision
from pipeline.select.joined import Judged
from pipeline.select.policies import bases_of, policy_of, usual_aggregation
from pipeline.select.simulate import NUM_DRAWS, Outcome, Simulation
from pipeline.store.document import library_versions, now
from pipeline.store.shard_store import ShardStore
from schemas.arrays import Bools
from schemas.errors import RetryableError, SettingsError
from schemas.policy import (
    BY_PASSAGE,
    IN_CONTEXT,
    AggregationName,
    Certificate,
    CostFlags,
    Expected,
    PolicyDocument,
    PolicyKind,
    PolicySpec,
    ScoreName,
    Wish,
)
from schemas.spec import fingerprint_of
from schemas.targets import TargetSpec

FOLDER = "policies"
LOOKS = "policies/looks"
_TRIED: tuple[PolicyKind, ...] = ("clip-threshold", "video-threshold", "video-part")
_TRIED_TO_CERTIFY = _TRIED[:2]
"""Of many candidates the most promising one is promising by chance, and only one is certified."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VOID = (
    "another student, other weights or another view of the clips",
    "another teacher, or targets of other settings",
    "videos unlike those it was certified on: other sources, lengths or classes",
    "videos that are damaged, or that student or teacher learnt from",
    "another policy, aggregation, temperature or decoder",
)


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
        }


@dataclass(frozen=True)
class CalibrateReport:
    """The policy that was written, and what it came to on the videos that it was chosen on."""

    url: str
    document: PolicyDocument
    chosen_on: Outcome

    def to_json(self) -> dict[str, Any]:
        return {"path": self.url, **self.document.model_dump(mode="json")}


@dataclass(frozen=True)
class Calibration:
    """What a student is calibrated with: ``sim`` has the videos that policies are chosen on, ``fit`` what scores in
    context come from, None where none is wanted."""

    student: StudentFolder
    targets: ShardStore
    calibration: Judged
    temperatures: tuple[float, float]
    fit: ContextFit | None
    sim: Simulation


def open_calibration(
    student: StudentFolder, options: CalibrateOptions = CalibrateOptions(), *, num_draws: int = NUM_DRAWS
) -> Calibration:
    """What there is to calibrate a student with; ``num_draws`` are for intervals, which choose nothing.

    Raises
    ------
    SettingsError
        If there are no held-out videos, or no targets any more.
    """
    targets = targets_of(student, options.targets)
    calibration = judged(student, "calibration", targets)
    temps = temperatures(student, calibration)
    choosing = to_choose_on(student, calibration, targets).tempered(*temps)
    costs = costs_of(options.costs, student, targets)
    fit = None
    if any(s.endswith(IN_CONTEXT) for s in options.scores):
        fit = ContextFit(choosing.known(), options.seed)
    known = choosing.known(None if fit is None else fit.for_these())
    sim = Simulation(known, costs, num_draws=num_draws, seed=options.seed)
    return Calibration(student, targets, calibration, temps, fit, sim)


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
    having = open_calibration(student, options)
    targets, temps, fit, sim = having.targets, having.temperatures, having.fit, having.sim
    tried = _TRIED if wish.max_disagreement is None else _TRIED_TO_CERTIFY
    kinds = options.kinds or tried
    if options.passage is not None and (other := [k for k in kinds if k not in BY_PASSAGE]):
        raise SettingsError(f"--passage is for {', '.join(BY_PASSAGE)}, not for {', '.join(other)}")
    bases = bases_of(kinds, options.scores, options.passage, _stride(targets, options.passage))
    certificate = None
    if wish.max_disagreement is not None:
        chosen, certificate = _guaranteed(having, bases, wish, options)
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
        expected=_expected(sim, chosen.outcome),
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


def _guaranteed(
    having: Calibration, bases: Sequence[PolicySpec], wish: Wish, options: CalibrateOptions
) -> tuple[Chosen, Certificate]:
    """The policy with a certificate. The one to test is that which needs the teacher least, on the videos to choose on,
    at half of the disagreement that is allowed."""
    alpha, delta = wish.max_disagreement or 0.0, round(1 - wish.confidence, 12)
    student, sim, temperature = having.student, having.sim, having.temperatures[0]
    base = _most_promising(sim, bases, options.aggregation, alpha)
    pooled = options.aggregation or usual_aggregation(base.kind)
    members = sequence_of(base, sim.known)
    body = {
        "student": student.fingerprint,
        "weights_sha256": student.about["weights_sha256"],
        "targets": having.targets.document.fingerprint,
        "members": [m.identity() for m in members],
        "aggregation": pooled,
        "student_temperature": temperature,
        "alpha": alpha,
        "delta": delta,
        "salt": options.seed,
    }
    context = having.fit if base.in_context else None
    if context is not None:
        body["context"] = context.heads.model_dump(mode="json")
    kept, left_out, named = _to_certify_on(student, having.calibration, having.targets)
    known = kept.tempered(temperature).known(None if context is None else context.for_others())
    body["data"] = _digest_of(kept)
    look = _written_down(student, body, lambda level: check_groups(known, pooled, alpha, level))
    found = certify(known, members, pooled, alpha=alpha, delta=look.level, salt=options.seed)
    spec = members[found.member]
    outcome = sim.outcome(_decided(spec, sim), pooled)
    certificate = Certificate(
        alpha=alpha,
        delta=delta,
        look=look.number,
        tested_at=look.level,
        spent=look.spent,
        groups=found.groups,
        named_groups=named,
        losses=found.losses,
        p_value=found.p_values[found.member],
        member=found.member,
        members=len(members),
        sequence=look.digest,
        left_out=left_out,
        holds_for="one video of each group, drawn at random, of readable videos like those of the calibration split",
        void_if=_VOID,
    )
    return Chosen(spec, pooled, outcome), certificate


def _most_promising(
    sim: Simulation, bases: Sequence[PolicySpec], aggregation: AggregationName | None, alpha: float
) -> PolicySpec:
    """The policy whose sequence gets furthest before it disagrees on more than half of ``alpha`` of the videos that
    one may choose on."""
    best: tuple[float, PolicySpec] | None = None
    for base in bases:
        ratio = 1.0
        for spec in sequence_of(base, sim.known)[1:]:
            outcome = sim.outcome(_decided(spec, sim), aggregation or usual_aggregation(base.kind))
            if outcome.agreement.value < 1 - alpha / 2:
                break
            ratio = outcome.ratio
        if best is None or ratio < best[0]:
            best = ratio, base
    if best is None:
        raise SettingsError("no policy was named")
    return best[1]


def _decided(spec: PolicySpec, sim: Simulation) -> Decision:
    return policy_of(spec).select(sim.known.scores)


@dataclass(frozen=True)
class _Look:
    """One use of a student's certificate groups. ``spent`` are the levels of it and those before, together."""

    number: int
    level: float
    spent: float
    digest: str


def _written_down(student: StudentFolder, body: Mapping[str, Any], check: Callable[[float], None]) -> _Look:
    """Write down what will be tested, and at which level, before it is; or find that it was. ``check`` raises where a
    level is of no use: then no look is spent."""
    digest = fingerprint_of(body)
    looks: list[_Look] = []
    for name in student.files.list(LOOKS):
        there = json.loads(student.files.read(f"{LOOKS}/{name}"))
        spent = there["level"] + (looks[-1].spent if looks else 0.0)
        looks.append(_Look(len(looks) + 1, there["level"], spent, there["digest"]))
        if there["digest"] == digest:
            return looks[-1]
    number = len(looks) + 1
    level = body["delta"] / 2 ** (number - 1)
    check(level)
    written = json.dumps({"digest": digest, "level": level, **body, "writer": uuid4().hex})
    if not student.files.put_new(f"{LOOKS}/{number:03d}.json", written.encode()):
        raise RetryableError(f"{student.url}: another process certifies at this moment; run again")
    return _Look(number, level, level + (looks[-1].spent if looks else 0.0), digest)


def _digest_of(kept: Judged) -> str:
    """Of all that a certificate comes from: other videos, words or groups are another look."""
    digest = hashlib.blake2b("\n".join(kept.video_id_N).encode(), digest_size=16)
    for values in (kept.start_us_N, kept.group_N, kept.student_NK, kept.teacher_NK):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _to_certify_on(
    student: StudentFolder, found: Judged, targets: ShardStore
) -> tuple[Judged, dict[str, int], int]:
    """Clips of whole, undamaged videos of groups that nothing was fitted on; what was left out, in videos, by reason;
    and how many of the groups have names."""
    ids, video_N = np.unique(np.array(found.video_id_N), return_inverse=True)
    group_V = found.group_N[np.unique(video_N, return_index=True)[1]]
    have_V = np.bincount(video_N)
    left_out: dict[str, int] = {}
    keep_V = np.ones(len(ids), np.bool_)

    def leave_out(reason: str, bad_V: Bools) -> None:
        left_out[reason] = int((keep_V & bad_V).sum())
        np.logical_and(keep_V, ~bad_V, out=keep_V)

    def any_of(rows_N: Bools) -> Bools:
        return np.bincount(video_N, rows_N, len(ids)) > 0

    leave_out("the heads were fitted on its group", np.isin(group_V, found.group_N[found.fitted_N]))
    leave_out("the teacher learnt from its group", np.isin(group_V, found.group_N[found.known_to_teacher_N]))
    leave_out("damaged", any_of(found.damaged_N))
    planned, named, shared = _planned(targets, student.about["train"].get("split_map", {}))
    leave_out(
        "its group has videos in other splits, or in none, which count as train",
        np.array([named.get(i) in shared for i in ids]),
    )
    leave_out(
        "not all of its clips have targets and frames", np.array([planned.get(i, -1) for i in ids]) != have_V
    )
    if not keep_V.any():
        raise SettingsError(
            f"{student.url}: no calibration video is left to certify on: {_counted(left_out)}. A student trained with "
            "--heads-share 0.5 keeps half of the groups for this"
        )
    names = {named.get(i) for i in ids[keep_V].tolist()} - {None}
    return found.where(keep_V[video_N]), {k: n for k, n in left_out.items() if n}, len(names)


def _planned(
    targets: ShardStore, split_map: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, str], set[str]]:
    """How many clips of each video are planned, the group of each that has one, and the groups that are partly in the
    calibration split."""
    videos = videos_in_force(targets)
    clip = TargetSpec(**targets.document.spec).clip
    counts: dict[str, int] = {}
    for batch in videos.to_batches():
        counts |= zip(batch["video_id"].to_pylist(), video_clips(batch, clip).tolist(), strict=True)
    named: dict[str, str] = {}
    sides: dict[str, set[bool]] = {}
    rows = zip(*(videos[n].to_pylist() for n in ("video_id", "group", "split")), strict=True)
    for video, group, split in rows:
        if group is not None:
            named[video] = group
            sides.setdefault(group, set()).add(role_of(split or "", split_map) is Role.CALIBRATION)
    return counts, named, {group for group, found in sides.items() if len(found) == 2}


def _counted(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{n} videos left out ({reason})" for reason, n in left_out.items() if n)


def _expected(sim: Simulation, outcome: Outcome) -> Expected:
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
    )


def _name_of(wish: Wish) -> str:
    """What a policy is called where nobody said: by its wish."""
    for name in ("budget", "max_cost", "accuracy_drop", "max_disagreement"):
        if (value := getattr(wish, name)) is not None:
            return f"{name.replace('_', '-')}-{value:g}"
    raise AssertionError("a wish says something")
