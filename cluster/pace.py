"""What takes long: which shards to begin with, and which worker is slow with its own. Pure; times are given.

It does not know why a worker is slow: a node may be throttled, its storage far away, or the shard hold one very hard
video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

from schemas.shard import ShardKey

_REMEMBERED, _ENOUGH = 101, 5
_SLOW = 1.5
_LEAST_SECONDS = 15.0
_LONG = 1.5


class Pace:
    """Seconds a clip of the last shards. A shard is slow that has taken half as long again as one of its size does, and
    some seconds beside."""

    def __init__(self) -> None:
        self._seconds_a_clip: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, clips: int, seconds: float) -> None:
        """A shard of so many clips took so long."""
        self._seconds_a_clip.append(seconds / max(1, clips))

    def is_slow(self, clips: int, seconds: float) -> bool:
        """Whether a shard should have been computed by now."""
        if len(self._seconds_a_clip) < _ENOUGH:
            return False
        return seconds > _LEAST_SECONDS + _SLOW * max(1, clips) * median(self._seconds_a_clip)


def long_ones_first(keys: Sequence[ShardKey], clips: Sequence[int]) -> list[ShardKey]:
    """The shards in their order, but for those much longer than most (one long video each): these come first, the
    longest of all at the head, so that no run ends with everybody waiting for one."""
    long = _LONG * median(clips) if clips else 0
    ordered = sorted(zip(keys, clips, strict=True), key=lambda k: -k[1] if k[1] > long else 0)
    return [key for key, _ in ordered]
