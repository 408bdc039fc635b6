"""What labels cost: accuracy against cost, where the time went, and money."""

from __future__ import annotations

import math

from jobs.reporting.behind import Held
from jobs.reporting.figures import Figures
from jobs.reporting.frontier import frontier_of
from jobs.reporting.gathered import Gathered
from jobs.reporting.said import money, percent
from jobs.words import duration
from pipeline.report.bars import draw_spending
from pipeline.report.frontier import Mark, draw_frontier
from pipeline.report.page import Picture, Table


def frontier(found: Gathered, held: Held, figures: Figures) -> Picture:
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


def spending(found: Gathered, figures: Figures) -> Picture:
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


def prices(found: Gathered) -> Table:
    ledger, p = found.ledger, found.ledger.prices
    dense = ledger.dense_parts
    price_of = {"decoding": p.decode, "student": p.student, "teacher": p.teacher, "audit": p.teacher}
    rows = []
    for part, seconds in ledger.parts.items():
        if part == "audit" and not seconds:
            continue
        row = [part, duration(seconds), duration(dense.get(part, 0.0))]
        if p:
            row += [
                money(seconds * price_of[part] / 3600),
                money(dense.get(part, 0.0) * price_of[part] / 3600),
            ]
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
