"""Which worker computes which shard: leases, attempts, commits, and giving up. Pure: events in, actions out.

A worker holds up to ``depth`` leases and computes them in the order given, so that it can decode the next while it
computes this one. A computed shard stays with its worker until the circuit breaker lets it be committed. A worker
that dies gives its leases back; the one it was computing is a suspect: it waits until nothing else is pending, then
runs alone on a worker, and is given up when it has cost ``max_attempts`` of them. An idle worker takes over a lease
that another has not begun.

Does not know Ray, time, or what is in a shard.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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


Action = Assign | Commit | Recall


@dataclass
class _Worker:
    leases: deque[ShardKey] = field(default_factory=deque)
    recalled: set[ShardKey] = field(default_factory=set)


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
        self._depth, self._max_attempts = depth, max_attempts
        self._workers: dict[int, _Worker] = {}
        self._computed: dict[ShardKey, int] = {}
        self._deaths: Counter[ShardKey] = Counter()
        self._stopped = self._is_shuffled = False
        self.failed: dict[ShardKey, str] = {}
        self.failed_in_a_row = 0

    # ---------------------------------------------------------------- what is so

    @property
    def done(self) -> bool:
        """Nothing is left that a worker could do."""
        return not (self._left or self._computed or any(w.leases for w in self._workers.values()))

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
        found = self._workers.get(worker)
        return tuple(found.leases) if found else ()

    def is_computed(self, key: ShardKey) -> bool:
        """Whether a worker holds the shard's result."""
        return key in self._computed

    @property
    def _left(self) -> int:
        return 0 if self._stopped else len(self._pending) + len(self._suspects)

    # ---------------------------------------------------------------- what happens

    def joined(self, worker: int) -> list[Action]:
        """A worker is ready."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} has joined already")
        self._workers[worker] = _Worker()
        return self._next()

    def computed(self, worker: int, key: ShardKey, videos: int, failures: Sequence[Failure]) -> list[Action]:
        """A shard is computed and waits with its worker.

        Raises
        ------
        CircuitOpenError
            If too many videos failed: nothing more may be committed.
        """
        self._end_lease(worker, key)
        self.failed_in_a_row = 0
        self._computed[key] = worker
        return self._commits(self._admission.admit(key, videos, failures)) + self._next()

    def skipped(self, worker: int, key: ShardKey, *, recalled: bool) -> list[Action]:
        """A shard was not computed: it was ``recalled`` in time, or another process has committed it."""
        self._end_lease(worker, key)
        if recalled:
            self._put_back([key])
        else:
            self._part_ways()
        return self._next()

    def raised(self, worker: int, key: ShardKey, error: str) -> list[Action]:
        """Computing a shard ended in an exception: it is given up, the worker goes on."""
        self._end_lease(worker, key)
        self.failed[key] = error
        self.failed_in_a_row += 1
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
        self.failed[key] = error
        self.failed_in_a_row += 1
        return self._next()

    def lost(self, worker: int, cause: str, *, blame: bool = True) -> list[Action]:
        """A worker is no more. ``blame`` says that what it was computing may be the reason."""
        gone = self._workers.pop(worker, _Worker())
        results = [key for key, at in self._computed.items() if at == worker]
        for key in results:
            del self._computed[key]
            self._admission.forget(key)
        suspect = next(iter([*gone.leases, *results]), None) if blame else None
        innocent = [key for key in [*results, *gone.leases] if key != suspect]
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
        recalls = [action for number in self._workers for action in self._recall(number)]
        return recalls + self._next()

    # ---------------------------------------------------------------- what to do then

    def _end_lease(self, worker: int, key: ShardKey) -> None:
        held = self._workers[worker]
        held.leases.remove(key)
        held.recalled.discard(key)

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
            self._workers[action.worker].leases.append(action.key)
            actions.append(action)
        actions += self._take_over()
        if not self._left and not any(w.leases for w in self._workers.values()):
            actions += self._commits(self._admission.release())
        return actions

    def _assignment(self) -> Assign | None:
        if not self._left or not self._workers:
            return None
        if not self._pending:
            idle = next((n for n, w in self._workers.items() if not w.leases), None)
            return None if idle is None else Assign(idle, self._suspects.popleft())
        open_to = [n for n, w in self._workers.items() if len(w.leases) < self._depth and not self._alone(w)]
        if not open_to:
            return None
        return Assign(min(open_to, key=lambda n: len(self._workers[n].leases)), self._pending.popleft())

    def _alone(self, worker: _Worker) -> bool:
        return any(self._deaths[key] for key in worker.leases)

    def _take_over(self) -> list[Action]:
        """Recall leases not begun, one for each idle worker, from those with the most."""
        idle = sum(not w.leases for w in self._workers.values())
        on_the_way = sum(key in w.recalled for w in self._workers.values() for key in _not_begun(w))
        actions: list[Action] = []
        for _ in range(idle - on_the_way - self._left):
            rich = [n for n in self._workers if self._may_recall(n)]
            if not rich:
                break
            actions += self._recall(max(rich, key=lambda n: len(self._may_recall(n))), at_most=1)
        return actions

    def _may_recall(self, number: int) -> list[ShardKey]:
        worker = self._workers[number]
        return [key for key in _not_begun(worker) if key not in worker.recalled]

    def _recall(self, number: int, *, at_most: int | None = None) -> list[Action]:
        """Recall the last of what the worker has not begun; all of it where no number is given."""
        keys = self._may_recall(number)
        keys = keys if at_most is None else keys[-at_most:]
        self._workers[number].recalled.update(keys)
        return [Recall(number, key) for key in keys]

    def _commits(self, keys: Sequence[ShardKey]) -> list[Action]:
        return [Commit(self._computed[key], key) for key in keys]


def _not_begun(worker: _Worker) -> list[ShardKey]:
    """A worker computes in the order given: all but the first wait, whether or not a recall of the first was sent."""
    return list(worker.leases)[1:]
