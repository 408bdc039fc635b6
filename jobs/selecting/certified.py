"""A policy with a guarantee: which members are tested, on which videos, and what that came to.

The certificate is had from calibration videos by which nothing else was chosen: the sequence of members hangs on none
of them, and is written down, with the level it is tested at, before it is tested.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from jobs.selecting.calibration import Calibration
from jobs.selecting.judged import StudentFolder
from pipeline.distill.splits import Role, role_of
from pipeline.known import videos_in_force
from pipeline.plan import video_clips
from pipeline.select.calibrate import Chosen, certify, check_groups, sequence_of
from pipeline.select.decision import Decision
from pipeline.select.joined import Judged
from pipeline.select.policies import policy_of, usual_aggregation
from pipeline.select.simulate import Simulation
from pipeline.store.shard_store import ShardStore
from schemas.arrays import Bools
from schemas.errors import RetryableError, SettingsError
from schemas.policy import AggregationName, Certificate, PolicySpec, Wish
from schemas.spec import fingerprint_of
from schemas.targets import TargetSpec

LOOKS = "policies/looks"
_VOID = (
    "another student, other weights or another view of the clips",
    "another teacher, or targets of other settings",
    "videos unlike those it was certified on: other sources, lengths or classes",
    "videos that are damaged, or that student or teacher learnt from",
    "another policy, aggregation, temperature or decoder",
)


def guaranteed(
    having: Calibration,
    bases: Sequence[PolicySpec],
    aggregation: AggregationName | None,
    wish: Wish,
    salt: int,
) -> tuple[Chosen, Certificate]:
    """The policy with a certificate. The one to test is that which needs the teacher least, on the videos to choose on,
    at half of the disagreement that is allowed. ``salt`` draws one video from each group.

    Raises
    ------
    SettingsError
        If there are too few groups for such a guarantee, or the policy can have none.
    RetryableError
        If another process certifies by the same groups at this moment.
    """
    alpha, delta = wish.max_disagreement or 0.0, round(1 - wish.confidence, 12)
    student, sim, temperature = having.student, having.sim, having.temperatures[0]
    base = _most_promising(sim, bases, aggregation, alpha)
    pooled = aggregation or usual_aggregation(base.kind)
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
        "salt": salt,
    }
    context = having.fit if base.in_context else None
    if context is not None:
        body["context"] = context.heads.model_dump(mode="json")
    kept, left_out, named = _to_certify_on(student, having.calibration, having.targets)
    known = kept.tempered(temperature).known(None if context is None else context.for_others())
    body["data"] = _digest_of(kept)
    look = _written_down(student, body, lambda level: check_groups(known, pooled, alpha, level))
    found = certify(known, members, pooled, alpha=alpha, delta=look.level, salt=salt)
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
