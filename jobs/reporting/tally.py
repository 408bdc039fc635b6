"""What the rows of a label store cost, shard by shard: as it was measured, and at the costs of the policy.

Shapes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.labelling.video_labels import answers_in
from pipeline.report.ledger import Ledger, Prices
from pipeline.select.costs import spent
from pipeline.select.whole import DenseTeacher
from schemas.labels import LabelSpec
from schemas.policy import CostSpec, PriceFlags


@dataclass
class Tally:
    """Sums over the shards that were added."""

    spec: LabelSpec
    costs: CostSpec
    videos: int = 0
    clips: int = 0
    decoded: int = 0
    deferred: int = 0
    asked: int = 0
    twice: bool = False
    """Whether clips that went to the teacher were decoded again for it."""
    once: int = 0
    once_s: float = 0.0
    """Clips that were decoded once, where some were twice."""
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decode", "student", "teacher", "audit"), 0.0)
    )
    at_costs: float = 0.0
    dense_at_costs: float = 0.0

    def add(self, table: pa.Table) -> None:
        """Rows of whole videos, with all columns."""
        decode_N, student_N, teacher_N = (
            _numbers(table, name) for name in ("decode_ms", "student_ms", "teacher_ms")
        )
        deferred_N = table["deferred"].to_numpy()
        heard_N = ~np.isnan(teacher_N)
        self.clips += len(decode_N)
        self.decoded += int((decode_N > 0).sum())
        once_N = (decode_N > 0) & ~(deferred_N & self.twice)
        self.once += int(once_N.sum())
        self.once_s += float(decode_N[once_N].sum()) / 1e3
        self.deferred += int(deferred_N.sum())
        self.asked += int(heard_N.sum())
        for name, ms_N in (
            ("decode", decode_N),
            ("student", student_N[~np.isnan(student_N)]),
            ("teacher", teacher_N[heard_N & deferred_N]),
            ("audit", teacher_N[heard_N & ~deferred_N]),
        ):
            self.seconds[name] += float(ms_N.sum()) / 1e3
        answers = answers_in(self.spec, table)
        decision = replace(answers.decision, in_two_passes=self.spec.policy.kind == "budget")
        self.videos += answers.scores.num_videos
        self.at_costs += spent(answers.scores, decision, self.costs).seconds
        dense = DenseTeacher().select(answers.scores)
        self.dense_at_costs += spent(answers.scores, dense, self.costs).seconds

    def ledger(self, prices: PriceFlags) -> Ledger:
        """Prices that are not given are the policy's."""
        s, c = self.seconds, self.costs
        given = (prices.decode, prices.student, prices.teacher)
        own = (c.decode_price, c.student_price, c.teacher_price)
        return Ledger(
            videos=self.videos,
            clips=self.clips,
            deferred=self.deferred,
            decode_s=s["decode"],
            dense_decode_s=self._dense_decode_s(),
            student_s=s["student"],
            teacher_s=s["teacher"],
            audit_s=s["audit"],
            teacher_clip_s=(s["teacher"] + s["audit"]) / self.asked if self.asked else c.teacher,
            teacher_clip_from=f"the mean over the {self.asked} clips that it looked at"
            if self.asked
            else "as the policy was calibrated with, for it looked at no clip",
            ratio_at_costs=self.at_costs / self.dense_at_costs if self.dense_at_costs else float("nan"),
            prices=Prices(*(o if g is None else g for g, o in zip(given, own, strict=True))),
        )

    def _dense_decode_s(self) -> float:
        """To decode every clip once: as long as it took for those that were decoded once, on average."""
        if self.once:
            return self.once_s / self.once * self.clips
        return self.seconds["decode"] / self.decoded * self.clips if self.decoded else 0.0


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """nan where null; (N,)."""
    return np.asarray(table[name].fill_null(float("nan")).to_numpy(), np.float64)
