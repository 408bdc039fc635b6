"""The demo's teacher as a spec. Reads the card that lies beside the weights; imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from schemas.model import ModelRef
from schemas.targets import TargetSpec


def demo_target_spec() -> TargetSpec:
    """What the shipped teacher says: 8 frames of 64 x 64 pixels from each 2 seconds, ten motions."""
    here = Path(__file__).parent
    card = json.loads((here / "teacher.json").read_text())
    teacher = ModelRef(
        factory=card["factory"],
        kwargs=card["kwargs"],
        weights=str(here / card["weights"]),
        weights_sha256=card["weights_sha256"],
        num_classes=len(card["classes"]),
        classes=tuple(card["classes"]),
        input=card["input"],
    )
    return TargetSpec(teacher=teacher, clip=card["clip"], view=card["view"], decode=card["decode"])
