"""The sections of a report, each from what was gathered. A figure is drawn once, and kept to be written to a file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.reporting.behind import Held
from jobs.reporting.cards import money, of_points, percent, points
from jobs.reporting.frontier import frontier_of
from jobs.reporting.gathered import Gathered, deferred_by_class
from jobs.words import duration
from pipeline.metrics import Estimate
from pipeline.report.bars import MOST_CLASSES, deferred_counts, draw_by_class, draw_deferred, draw_spending
from pipeline.report.curves import Said, draw_reliability, draw_risk_coverage
from pipeline.report.frontier import Mark, draw_frontier
from pipeline.report.page import Block, Note, Picture, Section, Table
from pipeline.report.quadrants import Quadrant, quadrants
from pipeline.report.style import as_inline
from pipeline.uncertainty import softmax
from pipeline.uris import without_secrets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CAUSES = 20
_HELD = {
    "test": "from which neither it, nor its confidence heads, nor the policy was made",
    "val": "by which its epoch and the policy were chosen",
    "calibration": "on half of which its confidence heads were fitted, and the policy was chosen",
}


@dataclass
class Figures:
    """Figures by name, as they were drawn."""

    drawn: dict[str, Figure] = field(default_factory=dict)

    def picture(self, name: str, title: str, figure: Figure, caption: str = "") -> Picture:
        self.drawn[name] = figure
        return Picture(title, as_inline(figure, name, f"{title}. {caption}"), caption)


def first_picture(found: Gathered, figures: Figures) -> Block:
    """Accuracy against cost where the student's held-out videos are at hand, else what was spent."""
    return _frontier(found, found.held, figures) if found.held is not None else _spending(found, figures)


def sections(found: Gathered, figures: Figures) -> list[Section]:
    """All sections but for the contact sheet."""
    spent: list[Block] = [_prices(found)]
    if found.held is not None:  # else it stands on top
        spent.insert(0, _spending(found, figures))
    out = [
        Section("cost", "What it cost", tuple(spent)),
        Section("lost", "What it lost", tuple(_lost(found))),
        Section("where", "Where the teacher was called", tuple(_where(found, figures))),
    ]
    if found.held is not None:
        lead = f"By the clips of the student's {found.held.split} split, {_HELD[found.held.split]}. "
        lead += "They need not be like the videos that were labelled."
        out.append(Section("trust", "How far both can be trusted", tuple(_trust(found.held, figures)), lead))
    out.append(Section("unread", "What could not be read", tuple(_unread(found))))
    if found.missing:
        out.append(Section("missing", "What is not shown", tuple(Note(text) for text in found.missing)))
    return out


# ---------------------------------------------------------------- cost


def _frontier(found: Gathered, held: Held, figures: Figures) -> Picture:
    lines = frontier_of(held.simulated, found.document.policy)
    o, c = held.applied.outcome, found.compared
    simulated = o.accuracy if lines.is_labelled else o.agreement
    marks = [Mark(f"this policy, {held.split} videos", (o.ratio, simulated.value), filled=False)]
    real = c.right if lines.is_labelled else c.agreement
    if real is not None and not math.isnan(found.ledger.ratio_at_costs):
        low, high = (None if math.isnan(v) else v for v in (real.low, real.high))
        marks.append(Mark("this run, its own videos", (found.ledger.ratio_at_costs, real.value), low, high))
    figure = draw_frontier(lines.lines, lines.dense, marks, lines.worth)
    videos, groups = (held.simulated.about[n] for n in ("videos", "groups"))
    caption = (
        f"Each line: the best that a policy can do for so much, on the {videos} {held.split} videos ({groups} groups) "
        "of the student, chosen on these very videos. Dashed: the dense teacher. Costs are those that the policy was "
        "calibrated with; what was measured stands above."
    )
    return figures.picture("frontier", "Accuracy against cost", figure, caption)


def _spending(found: Gathered, figures: Figures) -> Picture:
    ledger = found.ledger
    rows = {"these labels": ledger.parts, "dense teacher": ledger.dense_parts}
    scale, unit = next(
        (s, u)
        for s, u in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if ledger.dense_seconds >= s or s == 1
    )
    scaled = {name: {k: v / scale for k, v in parts.items()} for name, parts in rows.items()}
    words = {
        "these labels": duration(ledger.seconds)
        + (f" = {percent(ledger.ratio)}" if not math.isnan(ledger.ratio) else ""),
        "dense teacher": duration(ledger.dense_seconds),
    }
    caption = (
        f"{unit.capitalize()} of the device that each part ran on, as the rows of the clips say. The dense teacher was "
        f"not run: it would decode as much, and look at each clip for {1e3 * ledger.teacher_clip_s:.1f} ms, "
        f"{ledger.teacher_clip_from}."
    )
    return figures.picture(
        "spending", "Where the time went", draw_spending(scaled, f"{unit} of devices", words), caption
    )


def _prices(found: Gathered) -> Table:
    ledger, p = found.ledger, found.ledger.prices
    dense = ledger.dense_parts
    prices = {"decoding": p.decode, "student": p.student, "teacher": p.teacher, "audit": p.teacher}
    rows = []
    for part, seconds in ledger.parts.items():
        if part == "audit" and not seconds:
            continue
        row = [part, duration(seconds), duration(dense.get(part, 0.0))]
        if p:
            row += [money(seconds * prices[part] / 3600), money(dense.get(part, 0.0) * prices[part] / 3600)]
        rows.append(tuple(row))
    total = ["together", duration(sum(ledger.parts.values())), duration(ledger.dense_seconds)]
    if p:
        spent = (ledger.money or 0.0) + ledger.audit_s * p.teacher / 3600
        total += [money(spent), money(ledger.dense_money or 0.0)]
    head = ("", "these labels", "dense teacher", *(("money", "money, dense") if p else ()))
    caption = (
        f"An hour of decoding costs {money(p.decode)}, of the student {money(p.student)}, of the teacher "
        f"{money(p.teacher)}."
        if p
        else "Prices were not given: --prices.teacher and the like say what an hour of each device costs."
    )
    return Table(
        "Spent", head, (*rows, tuple(total)), frozenset({1, 2, 3, 4}), frozenset({len(rows)}), caption
    )


# ---------------------------------------------------------------- what was lost


def _lost(found: Gathered) -> list[Block]:
    c, a, e = found.compared, found.audit, found.document.expected
    rows: list[tuple[str, ...]] = []
    if c.labelled:
        rows.append(("these videos, with a label", str(c.labelled), _share(c.right), "", "", ""))
    if c.beside:
        beside = (_share(c.right_beside), _share(c.dense), _difference(c.difference), "")
        rows.append(("of these, with a word of the dense teacher", str(c.beside), *beside))
    if c.heard:
        rows.append(
            ("these videos, with a word of the dense teacher", str(c.heard), "", "", "", _share(c.agreement))
        )
    if a.videos:
        agree = f"{1 - a.disagreements / a.videos:.4f} (at most {percent(a.at_most)} differ)"
        rows.append(("audited videos, drawn at random", str(a.videos), "", "", "", agree))
    if found.held is not None:
        o, sim = found.held.applied.outcome, found.held.applied.sim
        dense = None
        if not math.isnan(o.accuracy.value):
            dense = Estimate(o.accuracy.value - o.gain.value, math.nan, math.nan)
        rows.append(
            (
                f"{found.held.split} videos of the student, simulated",
                str(sim.known.scores.num_videos),
                _share(o.accuracy),
                _share(dense),
                _difference(o.gain),
                _share(o.agreement),
            )
        )
    rows.append(
        (
            "videos that the policy was chosen on",
            str(e.videos),
            "" if e.accuracy is None else f"{e.accuracy:.4f}",
            "" if e.accuracy is None or e.gain is None else f"{e.accuracy - e.gain:.4f}",
            "" if e.gain is None else points(e.gain),
            f"{e.agreement:.4f}",
        )
    )
    head = (
        "on",
        "videos",
        "accuracy",
        "the dense teacher's",
        "difference",
        "same label as the dense teacher",
    )
    caption = (
        "Intervals (95 %) are over groups of videos. Videos that student, policy or teacher were made from do not "
        "count. Without labels in the manifest there is no accuracy."
    )
    if found.document.policy.passage is not None:
        caption += " This policy decides by passages: for films, one label of a whole video is not compared."
    blocks: list[Block] = [Table("", head, tuple(rows), frozenset({1}), caption=caption)]
    certificate = found.document.certificate
    if certificate is not None:
        blocks.append(
            Note(
                f"Guaranteed: with confidence {1 - certificate.delta:g} at most {certificate.alpha:g} of videos get "
                f"another label than the dense teacher's; certified on {certificate.groups} groups. It holds for "
                f"{certificate.holds_for}. Void with {'; '.join(certificate.void_if)}.",
                "good",
            )
        )
    if a.drift is not None:
        state = "ALARM" if a.drift.alarm else "no alarm" if a.groups else "nothing was audited yet"
        blocks.append(
            Note(
                f"Drift, tested against {a.drift.alpha:g}: {state} (e-value {a.drift.e_value:.3g} of "
                f"{1 / a.drift.delta:g}, {a.groups} audited groups).",
                "bad" if a.drift.alarm else "good" if a.groups else "plain",
            )
        )
    return blocks


def _share(e: Estimate | None) -> str:
    if e is None or math.isnan(e.value):
        return ""
    return f"{e.value:.4f}" + ("" if math.isnan(e.low) else f" [{e.low:.4f}, {e.high:.4f}]")


def _difference(e: Estimate | None) -> str:
    return "" if e is None or math.isnan(e.value) else f"{points(e.value)} {of_points(e)}"


# ---------------------------------------------------------------- where the teacher was called


def _where(found: Gathered, figures: Figures) -> list[Block]:
    by_class = deferred_by_class(found.table)
    blocks: list[Block] = []
    if by_class:
        share = {name: deferred / clips if clips else 0.0 for name, (clips, deferred) in by_class.items()}
        counts = {name: clips for name, (clips, _) in by_class.items()}
        figure = draw_by_class(share, counts, found.ledger.share)
        caption = f"By what their video was labelled; in brackets the clips. {len(share)} classes were given"
        caption += f", of which these {MOST_CLASSES} went there most." if len(share) > MOST_CLASSES else "."
        blocks.append(figures.picture("by-class", "Clips that went to the teacher", figure, caption))
    names, numbers = deferred_counts(found.table["deferred"].to_numpy())
    figure = draw_deferred(names, numbers)
    clips_V = found.table["clips"].to_numpy()
    caption = (
        f"Videos have {clips_V.min()} to {clips_V.max()} clips, {np.median(clips_V):g} in the middle."
        if len(clips_V)
        else ""
    )
    blocks.append(figures.picture("deferred", "Clips of a video that went to the teacher", figure, caption))
    return blocks


# ---------------------------------------------------------------- trust


def _trust(held: Held, figures: Figures) -> list[Block]:
    on, sim = held.applied.judged, held.applied.sim
    has_N = on.label_N >= 0
    if not has_N.any():
        return [Note("None of these videos has a label: nothing is known of how often either is right.")]
    known = sim.known
    student_NK = known.scores.probs_NK[has_N]
    teacher_NK = known.teacher_NK[has_N]
    as_said_NK = softmax(on.student_NK[has_N])
    label_N = on.label_N[has_N]
    right_N, teacher_right_N = (p.argmax(axis=1) == label_N for p in (student_NK, teacher_NK))
    wide = {
        "student, by its first class": Said(student_NK.max(axis=1).astype(np.float64), right_N),
        "student, by its confidence head": Said(
            known.scores.student_right_N[has_N].astype(np.float64), right_N
        ),
        "teacher, by its first class": Said(teacher_NK.max(axis=1).astype(np.float64), teacher_right_N),
    }
    sure = {
        "student, as it is": Said(as_said_NK.max(axis=1).astype(np.float64), right_N),
        "student, at its temperature": wide["student, by its first class"],
        "teacher": wide["teacher, by its first class"],
    }
    return [
        figures.picture(
            "risk-coverage",
            "Wrong answers among the surest",
            draw_risk_coverage(wide),
            "A line that falls to the left: confidence tells right from wrong.",
        ),
        figures.picture(
            "reliability",
            "What a probability is worth",
            draw_reliability(sure),
            "Bins of about equally many clips; on the dashed line a probability means what it says.",
        ),
        _quadrants(quadrants_of(held)),
    ]


def quadrants_of(held: Held) -> tuple[Quadrant, ...]:
    """Of the clips that have a label."""
    known = held.applied.sim.known
    has_N = known.label_N >= 0
    return quadrants(
        known.student_right_N[has_N] > 0,
        known.teacher_right_N[has_N] > 0,
        held.applied.decision.teacher_N[has_N],
    )


def _quadrants(found: tuple[Quadrant, ...]) -> Table:
    words = {
        (True, True): "both are right",
        (True, False): "the student alone is right",
        (False, True): "the teacher alone is right",
        (False, False): "neither is right",
    }
    rows = [
        (words[(q.student_right, q.teacher_right)], str(q.clips), percent(q.share), percent(q.deferred))
        for q in found
    ]
    return Table(
        "Who is right",
        ("clips", "number", "of all", "went to the teacher"),
        tuple(rows),
        frozenset({1, 2, 3}),
        frozenset({2}),
        "Calling the teacher pays where it alone is right, and nowhere else.",
    )


# ---------------------------------------------------------------- what could not be read


def _unread(found: Gathered) -> list[Block]:
    if not found.failed:
        if found.pending:
            return [Note(f"Nothing failed so far; {found.pending} clips are pending.")]
        return [Note("Every planned clip was read.", "good")]
    kinds = Counter((f.stage, f.error, f.permanent) for f in found.failed)
    rows_of: Counter[tuple[Any, ...]] = Counter()
    damaged_of: Counter[tuple[Any, ...]] = Counter()
    for f in found.failed:
        rows_of[(f.stage, f.error, f.permanent)] += f.missing_rows
        damaged_of[(f.stage, f.error, f.permanent)] += f.damaged_rows
    rows = [
        (
            stage,
            error,
            "for good" if permanent else "in passing",
            str(n),
            str(rows_of[key]),
            str(damaged_of[key]),
        )
        for key, n in kinds.most_common(_MOST_CAUSES)
        for stage, error, permanent in [key]
    ]
    caption = (
        f"{sum(kinds.values())} videos. `locum failures` lists them; `locum retry` plans those anew that failed in "
        "passing."
    )
    if len(kinds) > _MOST_CAUSES:
        caption = f"The {_MOST_CAUSES} most frequent of {len(kinds)} causes. {caption}"
    head = ("stage", "error", "", "videos", "clips missing", "clips damaged")
    return [Table("Quarantine", head, tuple(rows), frozenset({3, 4, 5}), caption=caption)]


def numbers(found: Gathered, kinds: Mapping[str, int]) -> dict[str, Any]:
    """The same as one JSON object."""
    held = found.held
    return {
        "store": without_secrets(found.store.url),
        "policy": found.document.name,
        "pending_clips": found.pending,
        "cost": found.ledger.to_json(),
        "lost": found.compared.to_json(),
        "audit": found.audit.to_json(),
        "review": {kind: n for kind, n in kinds.items() if n},
        "quarantined_videos": len(found.failed),
        "held_out": None
        if held is None
        else {
            "split": held.split,
            "videos": held.applied.sim.known.scores.num_videos,
            "ratio": held.applied.outcome.ratio,
            "share": held.applied.outcome.share,
            "accuracy": held.applied.outcome.accuracy.to_json(),
            "gain": held.applied.outcome.gain.to_json(),
            "agreement": held.applied.outcome.agreement.to_json(),
            "quadrants": [q.to_json() for q in quadrants_of(held)],
        },
        "missing": list(found.missing),
    }
