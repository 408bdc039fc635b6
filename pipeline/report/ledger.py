"""What labels cost, and what the dense teacher would have: seconds of the device of each part, and money. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prices:
    """Of an hour of each device, in whatever currency."""

    decode: float = 0.0
    student: float = 0.0
    teacher: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.decode or self.student or self.teacher)

    def money(self, decode_s: float, student_s: float, teacher_s: float) -> float:
        return (decode_s * self.decode + student_s * self.student + teacher_s * self.teacher) / 3600


@dataclass(frozen=True)
class Ledger:
    """Of ``clips`` that have rows the policy called the teacher for ``deferred``.
    ``audit_s`` is what the teacher took for audits beyond that, which is no cost of the labels.

    The dense teacher was not run. It would decode all clips once, idle ones too, in ``dense_decode_s``, and look at
    each for ``teacher_clip_s``; where that is from, ``teacher_clip_from`` says."""

    videos: int
    clips: int
    deferred: int
    decode_s: float
    dense_decode_s: float
    student_s: float
    teacher_s: float
    audit_s: float
    teacher_clip_s: float
    teacher_clip_from: str
    ratio_at_costs: float = float("nan")
    """Of the same decisions, at the costs that the policy was calibrated with."""
    prices: Prices = field(default_factory=Prices)

    @property
    def seconds(self) -> float:
        """All that the labels took."""
        return self.decode_s + self.student_s + self.teacher_s

    @property
    def dense_parts(self) -> dict[str, float]:
        """What the dense teacher would have taken, in seconds."""
        return {"decoding": self.dense_decode_s, "teacher": self.teacher_clip_s * self.clips}

    @property
    def parts(self) -> dict[str, float]:
        """What was spent, in seconds."""
        return {
            "decoding": self.decode_s,
            "student": self.student_s,
            "teacher": self.teacher_s,
            "audit": self.audit_s,
        }

    @property
    def dense_seconds(self) -> float:
        return sum(self.dense_parts.values())

    @property
    def ratio(self) -> float:
        """What the labels took as a share of what the dense teacher would; nan where neither is known."""
        return self.seconds / self.dense_seconds if self.dense_seconds else float("nan")

    @property
    def share(self) -> float:
        """Of the clips, those that went to the teacher."""
        return self.deferred / self.clips if self.clips else 0.0

    @property
    def money(self) -> float | None:
        """What the labels cost, None without prices."""
        return self.prices.money(self.decode_s, self.student_s, self.teacher_s) if self.prices else None

    @property
    def dense_money(self) -> float | None:
        parts = self.dense_parts
        return self.prices.money(parts["decoding"], 0.0, parts["teacher"]) if self.prices else None

    def to_json(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "clips": self.clips,
            "deferred": self.deferred,
            "share": self.share,
            "seconds": {k: round(v, 3) for k, v in self.parts.items()},
            "dense_seconds": {k: round(v, 3) for k, v in self.dense_parts.items()},
            "teacher_clip_from": self.teacher_clip_from,
            "ratio": _or_none(self.ratio),
            "ratio_at_costs": _or_none(self.ratio_at_costs),
            "money": self.money,
            "dense_money": self.dense_money,
        }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
