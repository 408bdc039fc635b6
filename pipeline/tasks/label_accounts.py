"""What of a shard's clips stands, and what befell its videos, after one look at them or two.

A failure that is for good leaves its video's other rows; a passing one takes them all. Rows of damaged frames say so,
and are counted in their video's failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.tasks.answering import ClipInHand
from schemas.shard import Failure, Shard


def accounted(
    shard: Shard,
    clips: Sequence[ClipInHand],
    first: Sequence[Failure],
    second: Mapping[str, Failure],
    decoder: str = "",
) -> tuple[list[ClipInHand], tuple[Failure, ...]]:
    """The rows that stand, and one failure a video: of ``first``, of the teacher's look (``second``, by video), or for
    rows alone that came from damaged frames."""
    passing = {i for i, f in second.items() if not f.permanent}
    rows = [c for c in clips if c.video_id not in passing]
    damage: dict[str, list[str]] = {}
    for clip in rows:
        a = clip.answer
        asked = a.deferred or a.audited
        if clip.video_id in second and asked and a.teacher_logits_SK is None:
            clip.damage = clip.damage or f"the teacher could not see it: {second[clip.video_id].message}"
        if asked:
            clip.damage = clip.damage or clip.teacher_damage
        if clip.damage:
            damage.setdefault(clip.video_id, []).append(clip.damage)
    before = {f.video_id: f for f in first}
    failures = []
    for video in shard.videos:
        name = video.video_id
        known = before.get(name) or second.get(name)
        if name in passing:
            failures.append(replace(second[name], missing_rows=video.num_clips, damaged_rows=0))
        elif known is not None:
            missing = before[name].missing_rows if name in before else 0
            count = len(damage.get(name, ()))
            if missing or count or name in before or not known.permanent:
                failures.append(replace(known, missing_rows=missing, damaged_rows=count))
        elif name in damage:
            words = damage[name]
            failures.append(
                Failure(name, video.uri, "decode", "Damaged", words[0], True, 1, 0, len(words), decoder)
            )
    return rows, tuple(failures)
