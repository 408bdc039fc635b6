"""The evidence as a page: what each set says of the claim first, then its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.evidence.auroc import QUESTIONS
from bench.evidence.gathered import PolicyRow, SetEvidence
from jobs.reporting.figures import Figures
from jobs.reporting.said import of_points, percent, points
from pipeline.metrics import Estimate
from pipeline.report.frontier import Line, Mark, draw_frontier
from pipeline.report.page import Block, Card, Note, Page, Section, Table

_POINT = 0.01


def page(sets: Sequence[SetEvidence], figures: Figures, facts: Sequence[tuple[str, str]]) -> Page:
    """One page of all sets."""
    first: list[Block] = [_summary(sets)]
    return Page(
        title=f"Evidence: student and teacher, over {len(sets)} data sets" if len(sets) > 1 else "Evidence",
        subtitle=(
            "A small student learns from a teacher's cached words, and calls the teacher where that pays. Policies are "
            "calibrated on other videos than those they are judged on; intervals (95 %) are over groups of videos."
        ),
        cards=tuple(_card(s) for s in sets),
        first=tuple(first),
        sections=tuple(_section(s, figures) for s in sets),
        facts=facts,
    )


def _card(s: SetEvidence) -> Card:
    title, o, safe = s.recipe.title, s.claim.within, s.claim.no_worse
    lines = [f"{s.videos} videos in {s.groups} groups, {s.clips / s.videos:.1f} clips each"]
    if safe is not None:
        lines.insert(
            0,
            f"calibrated to lose nothing: {percent(1 - safe.ratio)} saved, {points(safe.gain.value)} "
            f"{of_points(safe.gain)}",
        )
    if o is None:
        return Card(title, f"nothing for {percent(s.recipe.claim_cost)} of the cost", tuple(lines), "bad")
    lines.insert(
        0,
        f"accuracy {o.accuracy.value:.4f}, {points(o.gain.value)} {of_points(o.gain)} against the dense teacher",
    )
    kept = o.gain.value >= 0 or o.gain.low > -_POINT
    return Card(f"{title}: saved", percent(1 - o.ratio), tuple(lines), "good" if kept else "warn")


def _summary(sets: Sequence[SetEvidence]) -> Table:
    rows = []
    for s in sets:
        o, safe, u = s.claim.within, s.claim.no_worse, s.claim.beside_uniform
        rows.append(
            (
                s.recipe.title,
                percent(s.recipe.claim_cost),
                *(
                    "" if over is None else f"{percent(1 - over.ratio)}, {_difference(over.gain)}"
                    for over in (o, safe)
                ),
                ""
                if u is None
                else f"{_difference(u[3])}, at {percent(u[1].ratio)} and {percent(u[2].ratio)} of the cost",
            )
        )
    caption = (
        "What was saved, and the accuracy against the dense teacher's, on the test videos: by what `calibrate "
        "--max-cost` chose, and by what `calibrate --accuracy-drop 0` did, each on other videos. Uniform sampling: the "
        "calibrated policy and the `uniform-k` that cost most nearly the same, uniform-k no less."
    )
    head = (
        "data set",
        "may cost",
        "saved for that, and lost",
        "saved where nothing was to be lost, and lost",
        "accuracy over uniform sampling",
    )
    return Table("The claim", head, tuple(rows), frozenset({1}), caption=caption, wide=True)


def _section(s: SetEvidence, figures: Figures) -> Section:
    r = s.recipe
    blocks: list[Block] = [_picture(s, figures), _students(s), _policies(s), _auroc(s)]
    if s.left_out:
        text = "; ".join(f"{name}: {why}" for name, why in s.left_out.items())
        blocks.append(Note(f"Left out: {text}."))
    lead = (
        f"{r.about} Teacher: {r.teacher}. {s.videos} test videos, {s.groups} groups, {s.clips} clips "
        f"({s.clips / s.videos:.1f} a video)."
    )
    return Section(r.title.replace(" ", "-").replace(",", ""), r.title, tuple(blocks), lead)


def _picture(s: SetEvidence, figures: Figures) -> Block:
    lines: dict[str, list[tuple[float, float]]] = {}
    for p in s.policies:
        if p.may_cost is not None:
            lines.setdefault(p.name, []).append((p.over.ratio, p.over.accuracy.value))

    def role(name: str) -> str:
        if "oracle" in name:
            return "oracle"
        if name == "what calibrate chose":
            return "own"
        return "baseline" if name in ("uniform-k", "random-k") else "policy"

    alone = [
        Line(p.name, ((p.over.ratio, p.over.accuracy.value),), "baseline")
        for p in s.policies
        if p.name == "student-alone"
    ]
    drawn = [Line(name, tuple(at), role(name)) for name, at in lines.items()]
    marks = []
    if (o := s.claim.no_worse) is not None:
        low, high = (None if math.isnan(v) else v for v in (o.accuracy.low, o.accuracy.high))
        marks.append(Mark("calibrated to lose nothing", (o.ratio, o.accuracy.value), low, high))
    figure = draw_frontier([*drawn, *alone], s.dense.accuracy.value, marks)
    caption = (
        "Each point was calibrated on other videos, for a share of the dense cost; lines join a policy's."
    )
    return figures.picture(
        f"frontier-{s.recipe.title.replace(' ', '-').replace(',', '')}",
        "Accuracy against cost",
        figure,
        caption,
    )


def _students(s: SetEvidence) -> Table:
    rows = tuple(
        (
            a.name,
            str(a.students),
            _estimate(a.clip_accuracy),
            _estimate(a.video_accuracy),
            "" if a.difference is None else _difference(a.difference),
            f"{a.ece:.3f}",
            f"{a.nll:.3f}",
            f"{a.kl:.3f}",
            f"{a.parameters:,}",
        )
        for a in s.arms
    )
    head = (
        "student",
        "seeds",
        "clips right",
        "videos right",
        "over labels alone",
        "ECE",
        "NLL",
        "KL",
        "parameters",
    )
    return Table(
        "Students alone",
        head,
        rows,
        frozenset({1, 5, 6, 7, 8}),
        frozenset({0}),
        "KL: from the teacher, of clips.",
    )


def _policies(s: SetEvidence) -> Table:
    rows = tuple(_policy(p) for p in s.policies)
    strong = frozenset(i for i, p in enumerate(s.policies) if p.name == "what calibrate chose")
    head = (
        "policy",
        "may cost",
        "accuracy",
        "against the dense teacher",
        "agree",
        "to the teacher",
        "decode, student, teacher: s",
        "of the dense cost",
    )
    return Table(
        "Divided between both",
        head,
        rows,
        frozenset({1, 4, 5, 6, 7}),
        strong,
        "Seconds by the costs of the recipe.",
    )


def _policy(p: PolicyRow) -> tuple[str, ...]:
    o = p.over
    return (
        p.name,
        "" if p.may_cost is None else percent(p.may_cost),
        _estimate(o.accuracy),
        _difference(o.gain),
        f"{o.agreement:.3f}",
        percent(o.share),
        ", ".join(f"{v:.1f}" for v in o.seconds),
        percent(o.ratio),
    )


def _auroc(s: SetEvidence) -> Table:
    rows = tuple(
        (f"{line.of}'s {line.score}", *(_estimate(line.auroc[q], 3) for q in QUESTIONS)) for line in s.auroc
    )
    best = {max(range(len(rows)), key=lambda i: _value(s.auroc[i].auroc[q])) for q in QUESTIONS}
    caption = (
        "AUROC by clips: the chance that a score ranks a clip of which that is so above one of which it is not. A half "
        "is chance; high scores are unsure, or want the teacher. The best of each column stands out."
    )
    return Table(
        "Which score tells what", ("score", *QUESTIONS), rows, frozenset(), frozenset(best), caption, True
    )


def _value(e: Estimate) -> float:
    return -1.0 if math.isnan(e.value) else e.value


def _estimate(e: Estimate, digits: int = 4) -> str:
    if math.isnan(e.value):
        return ""
    bounds = "" if math.isnan(e.low) else f" [{e.low:.{digits}f}, {e.high:.{digits}f}]"
    return f"{e.value:.{digits}f}{bounds}"


def _difference(e: Estimate) -> str:
    return "" if math.isnan(e.value) else f"{points(e.value)} {of_points(e).removesuffix(' (95 %)')}"
