"""What a reader wants first: what the labels cost, what that saved, what it lost, and what to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jobs.reporting.gathered import Gathered
from jobs.reporting.said import money, of_points, percent, points
from jobs.words import duration
from pipeline.metrics import Estimate
from pipeline.report.page import Card, Tone
from pipeline.review import WORDS
from schemas.policy import Expected

_POINT = 0.01
_SHOWN = 3


def cards(found: Gathered, kinds: Mapping[str, int]) -> tuple[Card, ...]:
    """``kinds`` counts all videos by why they should be looked at."""
    return _cost(found), _saved(found), lost(found), _to_look_at(kinds)


def _cost(found: Gathered) -> Card:
    ledger = found.ledger
    of = "" if math.isnan(ledger.ratio) else percent(ledger.ratio)
    lines = ["of what the dense teacher would"] if of else []
    lines += [
        f"{duration(ledger.seconds)} of devices: decoding {duration(ledger.decode_s)}, student "
        f"{duration(ledger.student_s)}, teacher {duration(ledger.teacher_s)}"
    ]
    if ledger.audit_s:
        lines.append(f"and {duration(ledger.audit_s)} of the teacher for audits")
    if ledger.money is not None:
        lines.append(f"{money(ledger.money)} at the prices given")
    return Card("What it cost", of or duration(ledger.seconds), tuple(lines))


def _saved(found: Gathered) -> Card:
    ledger = found.ledger
    if math.isnan(ledger.ratio):
        return Card("What it saved", "not known", ("nothing is known of what the dense teacher takes",))
    saved = ledger.dense_seconds - ledger.seconds
    value = duration(saved) if saved >= 0 else f"-{duration(-saved)}"
    lines = [
        f"the dense teacher would take {duration(ledger.dense_seconds)}",
        f"it was called for {ledger.deferred} of {ledger.clips} clips ({percent(ledger.share)})",
    ]
    if ledger.money is not None and ledger.dense_money is not None:
        lines.insert(0, f"{money(ledger.dense_money - ledger.money)} of {money(ledger.dense_money)}")
    return Card("What it saved", value, tuple(lines), "good" if saved > 0 else "bad")


def lost(found: Gathered) -> Card:
    """The most direct thing that is known: accuracy beside the dense teacher's on these videos; else how often both
    agree, here or in audits; else what is known of the student's held-out videos."""
    title, c, a = "What it lost", found.compared, found.audit
    if a.drift is not None and a.drift.alarm:
        line = f"of {a.videos} audited videos {a.disagreements} got another label than the dense teacher's"
        promised = f"at most {percent(a.drift.alpha)} were promised: the archive is not what it was"
        return Card(title, "drift alarm", (line, promised), "bad", "#lost")
    if c.is_of_most and c.difference and c.right_beside and c.dense:
        lines = (
            f"accuracy {c.right_beside.value:.4f}, the dense teacher's {c.dense.value:.4f}",
            f"{of_points(c.difference)} on {c.beside} labelled videos in {c.groups} groups",
        )
        return Card(title, points(c.difference.value), lines, _tone(c.difference), "#lost")
    if c.agreement is not None and c.heard > a.videos:
        e = c.agreement
        lines = (
            "of videos have the dense teacher's label",
            f"[{percent(e.low)}, {percent(e.high)}] on {c.heard} videos",
        )
        return Card(title, f"{percent(e.value)} agree", lines, "plain", "#lost")
    if a.videos:
        lines = (
            f"of {a.videos} audited videos have the dense teacher's label",
            f"at most {percent(a.at_most)} have another (95 %, {a.groups} groups)",
        )
        return Card(title, f"{percent(1 - a.disagreements / a.videos)} agree", lines, "plain", "#lost")
    if found.held is not None:
        o = found.held.applied.outcome
        where = f"on {found.held.applied.sim.known.scores.num_videos} held-out videos, not on these"
        if not math.isnan(o.gain.value):
            return Card(title, points(o.gain.value), (where, f"{of_points(o.gain)}"), _tone(o.gain), "#lost")
        return Card(title, f"{percent(o.agreement.value)} agree", (where,), "plain", "#lost")
    return _as_expected(title, found.document.expected)


def _as_expected(title: str, expected: Expected) -> Card:
    where = f"on the {expected.videos} videos that the policy was chosen on, not on these"
    if expected.gain is not None:
        lucky = f"of which {points(expected.optimism)} may be luck" if expected.optimism else ""
        return Card(title, points(expected.gain), (where, *([lucky] if lucky else ())), "plain", "#lost")
    return Card(title, f"{percent(expected.agreement)} agree", (where,), "plain", "#lost")


def _to_look_at(kinds: Mapping[str, int]) -> Card:
    wanted = {k: n for k, n in kinds.items() if k not in ("sure", "unreadable") and n}
    total = sum(kinds.values())
    lines = [f"{n} × {WORDS[kind]}" for kind, n in list(wanted.items())[:_SHOWN]]
    if len(wanted) > _SHOWN:
        lines.append(f"{sum(list(wanted.values())[_SHOWN:])} more, for other reasons")
    if kinds.get("unreadable"):
        lines.append(f"{kinds['unreadable']} could not be read")
    number = sum(wanted.values())
    return Card(
        "What to look at",
        f"{number} of {total} videos",
        tuple(lines),
        "warn" if number or kinds.get("unreadable") else "good",
        "#look",
    )


def _tone(difference: Estimate) -> Tone:
    """Good where it is not below the dense teacher by a point (95 %), bad where it is surely below."""
    if difference.low > -_POINT:
        return "good"
    return "bad" if difference.high < 0 else "warn"
