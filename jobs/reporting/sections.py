"""The sections of a report, each from what was gathered, and the same as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.reporting.calls import calls
from jobs.reporting.figures import Figures
from jobs.reporting.gathered import Gathered
from jobs.reporting.losses import lost
from jobs.reporting.spending import frontier, prices, spending
from jobs.reporting.trust import quadrants_of, trust
from jobs.reporting.unread import unread
from pipeline.report.page import Block, Note, Section
from pipeline.uris import without_secrets

_HELD = {
    "test": "from which neither it, nor its confidence heads, nor the policy was made",
    "val": "by which its epoch and the policy were chosen",
    "calibration": "on half of which its confidence heads were fitted, and the policy was chosen",
}


def first_picture(found: Gathered, figures: Figures) -> Block:
    """Accuracy against cost where the student's held-out videos are at hand, else what was spent."""
    return frontier(found, found.held, figures) if found.held is not None else spending(found, figures)


def sections(found: Gathered, figures: Figures) -> list[Section]:
    """All sections but for the contact sheet."""
    spent: list[Block] = [prices(found)]
    if found.held is not None:  # else it stands on top
        spent.insert(0, spending(found, figures))
    out = [
        Section("cost", "What it cost", tuple(spent)),
        Section("lost", "What it lost", tuple(lost(found))),
        Section("where", "Where the teacher was called", tuple(calls(found, figures))),
    ]
    if found.held is not None:
        lead = f"By the clips of the student's {found.held.split} split, {_HELD[found.held.split]}. "
        lead += "They need not be like the videos that were labelled."
        out.append(Section("trust", "How far both can be trusted", tuple(trust(found.held, figures)), lead))
    out.append(Section("unread", "What could not be read", tuple(unread(found))))
    if found.missing:
        out.append(Section("missing", "What is not shown", tuple(Note(text) for text in found.missing)))
    return out


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
