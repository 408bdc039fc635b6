"""What audits say: how often labels agree with the dense teacher's, and whether that is still what was promised.

Videos that are damaged, that the teacher could not see whole, or that a model learnt from do not count. One audited
video of each group does (of each file, where no group is named), drawn by the hash of its id; groups stand in the order
in which they were planned, and by that hash. Only generations of which every shard is there are tested for drift, so
that what comes later stands behind what was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import draws_of
from pipeline.known import group_hashes, hash_text
from pipeline.select.drift import Drift, drift
from pipeline.select.learn_then_test import upper_bound
from pipeline.store.shard_store import ShardStore
from schemas.arrays import I64
from schemas.policy import PolicyDocument

_SALT = 0xA1A2
DELTA = 0.05


@dataclass(frozen=True)
class Audit:
    """Videos about all of whose clips the teacher was asked, and one of each group: with confidence ``1 - DELTA`` the
    rate of disagreement is ``at_most`` so much. ``drift`` where a rate is promised or given."""

    videos: int
    left_out: int
    disagreements: int
    groups: int
    losses: int
    at_most: float
    drift: Drift | None

    def to_json(self) -> dict[str, Any]:
        found = self.drift
        return {
            "videos": self.videos,
            "left_out": self.left_out,
            "disagreements": self.disagreements,
            "disagreement": self.disagreements / self.videos if self.videos else None,
            "groups": self.groups,
            "losses": self.losses,
            "at_most": self.at_most if self.videos else None,
            "drift": None
            if found is None
            else {
                "alpha": found.alpha,
                "delta": found.delta,
                "e_value": found.e_value,
                "alarm": found.alarm,
                "alarm_at": found.alarm_at,
            },
        }


def audit(
    store: ShardStore, labels: pa.Table, document: PolicyDocument, max_disagreement: float | None = None
) -> Audit:
    """Of the labels of videos (`jobs.labelling.video_labels.VIDEO_LABELS_SCHEMA`) of a store. Tested is
    ``max_disagreement``, or what the policy's certificate promises; nothing where neither is there."""
    audited = labels.filter(labels["audited"])
    whole = pc.and_(pc.is_valid(audited["audit_top1"]), pc.is_valid(audited["top1"]))
    unseen = pc.and_(pc.equal(audited["damaged"], 0), pc.invert(audited["learnt"]))
    done = audited.filter(pc.and_(whole, unseen))
    losses_V = pc.not_equal(done["top1"], done["audit_top1"]).to_numpy()
    generation_V = _generations(store, done["video_id"])
    rows = _one_a_group(done, generation_V)
    losses_G = losses_V[rows]
    certificate = document.certificate
    alpha = max_disagreement or (certificate.alpha if certificate is not None else None)
    found = None
    if alpha is not None:
        settled = rows[generation_V[rows] <= _last_settled(store)]
        found = drift(losses_V[settled], alpha, DELTA if certificate is None else certificate.delta)
    losses, groups = int(losses_G.sum()), len(losses_G)
    at_most = upper_bound(losses, groups, DELTA)
    left_out = audited.num_rows - done.num_rows
    return Audit(len(losses_V), left_out, int(losses_V.sum()), groups, losses, at_most, found)


def _one_a_group(done: pa.Table, generation_V: I64) -> I64:
    """Rows of one video of each group, in order."""
    draw_V = draws_of(hash_text(done["video_id"].combine_chunks()), _SALT)
    order_V = np.lexsort((draw_V, generation_V))
    _, first = np.unique(group_hashes(done)[order_V], return_index=True)
    return np.asarray(order_V[np.sort(first)], np.int64)


def _generations(store: ShardStore, ids: pa.ChunkedArray) -> I64:
    """The generation in which each video is computed: the last one that plans work on it; (V,)."""
    wanted = ids.combine_chunks()
    out = np.zeros(len(wanted), np.int64)
    for plan in store.plans():
        for batch in plan.batches(["video_id", "shard"]):
            planned = batch.filter(pc.greater_equal(batch["shard"], 0))["video_id"]
            out[pc.is_in(wanted, value_set=planned).to_numpy(zero_copy_only=False)] = plan.generation
    return out


def _last_settled(store: ShardStore) -> int:
    """The last generation before one of which a shard is missing."""
    missing = {key.generation for key in store.pending()}
    return min(missing, default=len(store.generations()) + 1) - 1
