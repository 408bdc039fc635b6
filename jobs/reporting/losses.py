"""What labels lost: beside what is known of the same videos, audits, and what was simulated."""

from __future__ import annotations

import math

from jobs.reporting.gathered import Gathered
from jobs.reporting.said import difference, percent, points, share
from pipeline.metrics import Estimate
from pipeline.report.page import Block, Note, Table


def lost(found: Gathered) -> list[Block]:
    c, a, e = found.compared, found.audit, found.document.expected
    rows: list[tuple[str, ...]] = []
    if c.labelled:
        rows.append(("these videos, with a label", str(c.labelled), share(c.right), "", "", ""))
    if c.beside:
        beside = (share(c.right_beside), share(c.dense), difference(c.difference), "")
        rows.append(("of these, with a word of the dense teacher", str(c.beside), *beside))
    if c.heard:
        rows.append(
            ("these videos, with a word of the dense teacher", str(c.heard), "", "", "", share(c.agreement))
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
                share(o.accuracy),
                share(dense),
                difference(o.gain),
                share(o.agreement),
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
