"""Who holds which shards: a worker's leases in the order given, and which worker to ask for what. Pure.

Each answer takes the same time for ten workers and ten thousand. A worker computes in the order given: all but the
first of its leases wait, whether or not a recall of the first was sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from schemas.shard import ShardKey


@dataclass
class _Held:
    leases: deque[ShardKey] = field(default_factory=deque)
    recalled: set[ShardKey] = field(default_factory=set)
    in_vain: set[ShardKey] = field(default_factory=set)
    alone: bool = False
    leaves: bool = False

    @property
    def not_begun(self) -> list[ShardKey]:
        return list(self.leases)[0 if self.in_vain else 1 :]

    @property
    def recallable(self) -> list[ShardKey]:
        return [key for key in self.not_begun if key not in self.recalled]


class Leases:
    """Of workers that hold up to ``depth`` leases each. Workers are numbers."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._held: dict[int, _Held] = {}
        self._open: list[dict[int, None]] = [{} for _ in range(depth)]
        """Workers that may be given more, by the number of leases they hold; the longest so first."""
        self._rich: list[dict[int, None]] = [{} for _ in range(depth + 1)]
        """Workers by the number of leases that may be recalled of them."""
        self.total = 0
        self.on_the_way_back = 0
        """Leases not begun that were recalled and not answered."""

    def __contains__(self, worker: int) -> bool:
        return worker in self._held

    def of(self, worker: int) -> tuple[ShardKey, ...]:
        """What a worker holds, the one under way first."""
        found = self._held.get(worker)
        return tuple(found.leases) if found else ()

    @property
    def num_idle(self) -> int:
        """Workers that hold nothing and may be given something."""
        return len(self._open[0])

    def idle(self) -> int | None:
        """A worker that holds nothing and may be given something."""
        return next(iter(self._open[0]), None)

    def least_loaded(self) -> int | None:
        """The worker to give the next shard to; None where all have enough."""
        return next((worker for load in self._open for worker in load), None)

    def richest(self) -> int | None:
        """The worker with the most leases that may be recalled; None where there are none."""
        return next((worker for load in reversed(self._rich[1:]) for worker in load), None)

    def join(self, worker: int) -> None:
        """A worker that holds nothing yet."""
        self._held[worker] = _Held()
        self._count(worker, 1)

    def give(self, worker: int, key: ShardKey, *, alone: bool = False) -> None:
        """One more lease; ``alone`` keeps others away until it ends."""
        held = self._change(worker)
        held.leases.append(key)
        held.alone = held.alone or alone
        self._count(worker, 1)

    def end(self, worker: int, key: ShardKey) -> None:
        """A lease ended, however it did; or work that was in vain."""
        held = self._change(worker)
        if key in held.in_vain:
            held.in_vain.discard(key)
        else:
            held.leases.remove(key)
        held.recalled.discard(key)
        held.alone = held.alone and bool(held.leases)
        self._count(worker, 1)

    def end_all(self, key: ShardKey) -> None:
        """Nobody needs to compute the shard any more. Who has begun it is given nothing new until it has ended."""
        for worker in [n for n, held in self._held.items() if key in held.leases]:
            held = self._change(worker)
            if held.leases[0] == key and not held.in_vain:
                held.in_vain.add(key)
            held.leases.remove(key)
            held.recalled.discard(key)
            self._count(worker, 1)

    def works_in_vain(self, worker: int) -> bool:
        """Whether a worker is computing what nobody needs any more."""
        return worker in self._held and bool(self._held[worker].in_vain)

    def holders(self, key: ShardKey) -> int:
        """How many workers have a lease of the shard; it takes a look at each."""
        return sum(key in held.leases for held in self._held.values())

    def recall(self, worker: int, *, at_most: int | None = None) -> list[ShardKey]:
        """Note that the last of what the worker has not begun is asked back; all of it where no number is given."""
        held = self._change(worker)
        keys = held.recallable if at_most is None else held.recallable[-at_most:]
        held.recalled.update(keys)
        self._count(worker, 1)
        return keys

    def retire(self, worker: int) -> None:
        """The worker is given nothing more."""
        self._change(worker).leaves = True
        self._count(worker, 1)

    def leave(self, worker: int) -> tuple[ShardKey, ...]:
        """The worker is gone; what it held."""
        if worker not in self._held:
            return ()
        held = self._change(worker)
        del self._held[worker]
        return tuple(held.leases)

    def workers(self) -> list[int]:
        return list(self._held)

    def _change(self, worker: int) -> _Held:
        """Take the worker out of the counts; `_count` puts it back."""
        self._count(worker, -1)
        return self._held[worker]

    def _count(self, worker: int, sign: int) -> None:
        held = self._held[worker]
        load, recallable = len(held.leases), len(held.recallable)
        self.total += sign * load
        self.on_the_way_back += sign * (len(held.not_begun) - recallable)
        places = [self._rich[recallable]]
        if load < self._depth and not (held.alone or held.leaves or held.in_vain):
            places.append(self._open[load])
        for place in places:
            if sign > 0:
                place[worker] = None
            else:
                del place[worker]
