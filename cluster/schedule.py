"""Which worker computes which shard: leases, attempts, commits, and giving up. Pure: events in, actions out.

A worker holds up to ``depth`` leases and computes them in the order given, so that it can decode the next while it
computes this one. A computed shard stays with its worker until the circuit breaker lets it be committed. A worker
that dies gives its leases back; the one it was computing is a suspect: it waits until nothing else is pending, then
runs alone on a worker, and is given up when it has cost ``max_attempts`` of them. An idle worker takes over a lease
that another has not begun. A worker that is to leave finishes what it has begun and is given nothing more.

What a worker is slow with, an idle one may compute too (`Schedule.copy`), once at most. The first of both that is
computed counts; nobody waits for the other.

Does not know Ray, time, or what is in a shard.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.leases import Leases
from pipeline.admission import Admission
from schemas.shard import Failure, ShardKey


@dataclass(frozen=True, slots=True)
class Assign:
    """The worker is to compute the shard after those it holds."""

    worker: int
    key: ShardKey


@dataclass(frozen=True, slots=True)
class Commit:
    """The worker is to commit the shard that it computed."""

    worker: int
    key: ShardKey


@dataclass(frozen=True, slots=True)
class Recall:
    """The worker is to give the shard back if it has not begun it (`Schedule.skipped`), else to go on with it."""

    worker: int
    key: ShardKey


@dataclass(frozen=True, slots=True)
class Drop:
    """The worker is to forget the shard that it computed: another was first."""

    worker: int
    key: ShardKey


Action = Assign | Commit | Recall | Drop


class Schedule:
    """The state of one run. Workers are numbers that are never used twice.

    ``failed`` holds the shards that were given up, with the reason; ``failed_in_a_row`` how many of the last ones
    to end did so by an exception.
    """

    def __init__(
        self, pending: Iterable[ShardKey], admission: Admission, *, depth: int = 2, max_attempts: int = 3
    ) -> None:
        if depth < 1 or max_attempts < 1:
            raise ValueError(f"depth and max_attempts must be at least 1, got {depth}, {max_attempts}")
        self._pending = deque(pending)
        self._suspects: deque[ShardKey] = deque()
        self._admission = admission
        self._max_attempts = max_attempts
        self._leases = Leases(depth)
        self._computed: dict[ShardKey, int] = {}
        self._copied: set[ShardKey] = set()
        self._deaths: Counter[ShardKey] = Counter()
        self._stopped = self._is_shuffled = False
        self.failed: dict[ShardKey, str] = {}
        self.failed_in_a_row = 0

    # ---------------------------------------------------------------- what is so

    @property
    def done(self) -> bool:
        """Nothing is left that a worker could do."""
        return not (self._left or self._computed or self._leases.total)

    @property
    def out_of_time(self) -> bool:
        """The run was stopped before everything was begun."""
        return self._stopped and bool(self._pending or self._suspects)

    @property
    def num_waiting(self) -> int:
        """Shards that no worker holds."""
        return self._left

    def leases(self, worker: int) -> tuple[ShardKey, ...]:
        """What the worker holds and has not computed, the one under way first."""
        return self._leases.of(worker)

    @property
    def num_leased(self) -> int:
        """Shards that workers hold and have not computed."""
        return self._leases.total - sum(self._leases.holders(key) > 1 for key in self._copied)

    @property
    def num_computed(self) -> int:
        """Shards whose results wait with their workers."""
        return len(self._computed)

    def is_busy(self, worker: int) -> bool:
        """Whether a worker computes, be it in vain."""
        return bool(self._leases.of(worker)) or self._leases.works_in_vain(worker)

    def holds(self, worker: int) -> bool:
        """Whether a worker has something to compute or to commit that counts."""
        return bool(self._leases.of(worker)) or worker in self._computed.values()

    def is_copied(self, key: ShardKey) -> bool:
        """Whether two workers were given the shard."""
        return key in self._copied

    def is_wanted(self, worker: int, key: ShardKey) -> bool:
        """Whether a result of the shard from this worker would count."""
        return key not in self._computed and key in self._leases.of(worker)

    def is_computed(self, key: ShardKey) -> bool:
        """Whether a worker holds the shard's result."""
        return key in self._computed

    @property
    def _left(self) -> int:
        return 0 if self._stopped else len(self._pending) + len(self._suspects)

    # ---------------------------------------------------------------- what happens

    def joined(self, worker: int) -> list[Action]:
        """A worker is ready."""
        if worker in self._leases:
            raise ValueError(f"worker {worker} has joined already")
        self._leases.join(worker)
        return self._next()

    def retire(self, worker: int) -> list[Action]:
        """A worker is to leave: it finishes what it has begun, and what waits with it is committed."""
        if worker not in self._leases:
            return []
        self._leases.retire(worker)
        return self._recall(worker) + self._next()

    def computed(self, worker: int, key: ShardKey, videos: int, failures: Sequence[Failure]) -> list[Action]:
        """A shard is computed and waits with its worker.

        Raises
        ------
        CircuitOpenError
            If too many videos failed: nothing more may be committed.
        """
        if not self.is_wanted(worker, key):
            self._leases.end(worker, key)
            return [Drop(worker, key), *self._next()]
        self._leases.end(worker, key)
        self.failed_in_a_row = 0
        self._computed[key] = worker
        if key in self._copied:
            self._leases.end_all(key)
        return self._commits(self._admission.admit(key, videos, failures)) + self._next()

    def skipped(self, worker: int, key: ShardKey, *, recalled: bool) -> list[Action]:
        """A shard was not computed: it was ``recalled`` in time, or another process has committed it."""
        self._leases.end(worker, key)
        if key in self._copied:
            if not self._is_elsewhere(key) and recalled:
                self._put_back([key])
        elif recalled:
            self._put_back([key])
        else:
            self._part_ways()
        return self._next()

    def raised(self, worker: int, key: ShardKey, error: str) -> list[Action]:
        """Computing a shard ended in an exception: it is given up, the worker goes on."""
        was_wanted = self.is_wanted(worker, key)
        self._leases.end(worker, key)
        if was_wanted and not self._is_elsewhere(key):
            self._fail(key, error)
        return self._next()

    def committed(self, worker: int, key: ShardKey, *, lost: bool = False) -> list[Action]:
        """A shard's file is there, by this worker or, where ``lost``, by another process."""
        del self._computed[key]
        if lost:
            self._part_ways()
        return self._next()

    def not_committed(self, worker: int, key: ShardKey, error: str) -> list[Action]:
        """Committing a shard ended in an exception: it is given up, the worker goes on."""
        del self._computed[key]
        self._fail(key, error)
        return self._next()

    def copy(self, worker: int) -> list[Action]:
        """A worker is slow with what it has begun: one that has nothing to do computes that too, where there is one."""
        slow = self._leases.of(worker)[:1]
        idle = self._leases.idle()
        spare = self._leases.num_idle - self._leases.on_the_way_back
        if not slow or idle is None or spare <= 0 or self._stopped or self._left:
            return []
        key = slow[0]
        if key in self._copied or self._deaths[key] or self._leases.works_in_vain(worker):
            return []
        self._copied.add(key)
        self._leases.give(idle, key)
        return [Assign(idle, key)]

    def lost(self, worker: int, cause: str, *, blame: bool = True) -> list[Action]:
        """A worker is no more. ``blame`` says that what it was computing may be the reason."""
        blame = blame and not self._leases.works_in_vain(worker)
        leases = self._leases.leave(worker)
        results = [key for key, at in self._computed.items() if at == worker]
        for key in results:
            del self._computed[key]
            self._admission.forget(key)
        suspect = next(iter([*leases, *results]), None) if blame else None
        if suspect is not None and self._is_elsewhere(suspect):
            suspect = None
        innocent = [key for key in [*results, *leases] if key != suspect and not self._is_elsewhere(key)]
        self._put_back(innocent)
        if suspect is not None:
            self._deaths[suspect] += 1
            if self._deaths[suspect] < self._max_attempts:
                self._suspects.append(suspect)
            else:
                self.failed[suspect] = f"{self._deaths[suspect]} workers died computing it; the last: {cause}"
        return self._next()

    def stop(self) -> list[Action]:
        """Time is up: what is under way is finished, nothing more is begun."""
        self._stopped = True
        recalls = [action for number in self._leases.workers() for action in self._recall(number)]
        return recalls + self._next()

    # ---------------------------------------------------------------- what to do then

    def _is_elsewhere(self, key: ShardKey) -> bool:
        """Whether another worker computes the shard or has its result. Of the asking one it was taken away before."""
        return key in self._copied and (key in self._computed or self._leases.holders(key) > 0)

    def _fail(self, key: ShardKey, error: str) -> None:
        self.failed[key] = error
        self.failed_in_a_row += 1

    def _part_ways(self) -> None:
        """Another run is at work on the store: take what is left in another order than it does."""
        if not self._is_shuffled:
            self._is_shuffled = True
            left = list(self._pending)
            random.shuffle(left)
            self._pending = deque(left)

    def _put_back(self, keys: Sequence[ShardKey]) -> None:
        """Shards are pending again: first of all, but where they killed a worker before."""
        self._pending.extendleft(key for key in reversed(keys) if not self._deaths[key])
        self._suspects.extendleft(key for key in reversed(keys) if self._deaths[key])

    def _next(self) -> list[Action]:
        actions: list[Action] = []
        while (action := self._assignment()) is not None:
            self._leases.give(action.worker, action.key, alone=bool(self._deaths[action.key]))
            actions.append(action)
        actions += self._take_over()
        if not self._left and not self._leases.total:
            actions += self._commits(self._admission.release())
        return actions

    def _assignment(self) -> Assign | None:
        if not self._left:
            return None
        if not self._pending:
            idle = self._leases.idle()
            return None if idle is None else Assign(idle, self._suspects.popleft())
        worker = self._leases.least_loaded()
        return None if worker is None else Assign(worker, self._pending.popleft())

    def _take_over(self) -> list[Action]:
        """Recall leases not begun, one for each idle worker, from those with the most."""
        actions: list[Action] = []
        for _ in range(self._leases.num_idle - self._leases.on_the_way_back - self._left):
            rich = self._leases.richest()
            if rich is None:
                break
            actions += self._recall(rich, at_most=1)
        return actions

    def _recall(self, worker: int, *, at_most: int | None = None) -> list[Action]:
        return [Recall(worker, key) for key in self._leases.recall(worker, at_most=at_most)]

    def _commits(self, keys: Sequence[ShardKey]) -> list[Action]:
        return [Commit(self._computed[key], key) for key in keys]
