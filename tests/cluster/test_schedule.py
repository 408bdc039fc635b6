"""The schedule: each event's answer, and a simulation in which workers come, die and give back in any order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.schedule import Action, Assign, Commit, Drop, Recall, Schedule
from pipeline.admission import Admission
from pipeline.breaker import BreakerSettings
from schemas.errors import CircuitOpenError
from schemas.shard import Failure, ShardKey

AWAY = Failure("v" * 32, "s3://b/v.mp4", "open", "Timeout", "it did not answer", False, 3, 1)


def key(number: int) -> ShardKey:
    return ShardKey(1, number)


A, B, C, D = (key(n) for n in range(4))


def schedule(*pending: ShardKey, depth: int = 2, max_attempts: int = 3, min_failures: int = 20) -> Schedule:
    admission = Admission(BreakerSettings(max_transient_share=1.0, min_failures=min_failures))
    return Schedule(pending, admission, depth=depth, max_attempts=max_attempts)


# -------------------------------------------------------------------- one event at a time


def test_a_worker_is_given_as_much_as_it_may_hold_and_more_as_it_goes() -> None:
    s = schedule(A, B, C)
    assert s.joined(0) == [Assign(0, A), Assign(0, B)]
    assert (s.leases(0), s.num_waiting, s.done) == ((A, B), 1, False)
    assert s.computed(0, A, 1, []) == [Commit(0, A), Assign(0, C)]
    assert s.committed(0, A) == []
    assert s.leases(0) == (B, C)


def test_shards_are_dealt_to_the_worker_with_the_fewest() -> None:
    s = schedule(A, B, C)
    s.joined(0)
    s.computed(0, A, 1, [])
    assert s.leases(0) == (B, C)
    s = schedule(A)
    assert s.joined(0) == [Assign(0, A)]
    assert s.joined(1) == []


def test_nothing_pending_is_done_at_once_and_a_number_is_used_once() -> None:
    s = schedule()
    assert s.done and s.joined(0) == []
    with pytest.raises(ValueError, match="worker 0"):
        s.joined(0)
    with pytest.raises(ValueError, match="0, 3"):
        schedule(depth=0)
    with pytest.raises(ValueError, match="2, 0"):
        schedule(max_attempts=0)


def test_it_is_done_only_when_the_last_commit_is_answered() -> None:
    s = schedule(A)
    s.joined(0)
    s.computed(0, A, 1, [])
    assert not s.done
    s.committed(0, A)
    assert s.done


def test_an_exception_ends_the_shard_and_not_the_worker() -> None:
    s = schedule(A, B, C)
    s.joined(0)
    assert s.raised(0, A, "KeyError: 1") == [Assign(0, C)]
    s.raised(0, B, "KeyError: 2")
    assert (s.failed, s.failed_in_a_row) == ({A: "KeyError: 1", B: "KeyError: 2"}, 2)
    s.computed(0, C, 1, [])
    assert s.failed_in_a_row == 0


def test_a_shard_that_another_process_committed_is_nobodys() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.skipped(0, A, recalled=False) == []
    assert s.leases(0) == (B,) and s.num_waiting == 0


def test_a_commit_that_raises_gives_the_shard_up() -> None:
    s = schedule(A, B)
    s.joined(0)
    s.computed(0, A, 1, [])
    s.not_committed(0, A, "OSError: no space left")
    assert s.failed == {A: "OSError: no space left"} and s.failed_in_a_row == 1
    s.computed(0, B, 1, [])
    s.committed(0, B)
    assert s.done


@pytest.mark.parametrize("how", ["skipped", "committed"])
def test_two_runs_on_one_store_part_ways(how: str) -> None:
    keys = [ShardKey(1, n) for n in range(200)]
    s = schedule(*keys, depth=1)
    (first,) = s.joined(0)
    if how == "skipped":
        actions = s.skipped(0, first.key, recalled=False)
    else:
        s.computed(0, first.key, 1, [])
        actions = s.committed(0, first.key, lost=True)
    order = []
    while not s.done:
        for key in [*s.leases(0)]:
            order.append(key)
            s.computed(0, key, 1, [])
            s.committed(0, key)
    assert actions is not None and sorted(order) == keys[1:] and order[5:] != keys[6:]


def test_what_was_under_way_when_a_worker_died_runs_last_and_alone() -> None:
    s = schedule(A, B, C, D)
    s.joined(0)
    assert s.lost(0, "signal 11") == []
    assert s.num_waiting == 4
    assert s.joined(1) == [Assign(1, B), Assign(1, C)]
    assert s.computed(1, B, 1, []) == [Commit(1, B), Assign(1, D)]
    assert s.computed(1, C, 1, []) == [Commit(1, C)]
    assert s.computed(1, D, 1, []) == [Commit(1, D), Assign(1, A)]
    assert s.leases(1) == (A,)


def test_a_shard_is_given_up_when_it_has_cost_so_many_workers() -> None:
    s = schedule(A, max_attempts=2)
    s.joined(0)
    s.lost(0, "first")
    assert s.joined(1) == [Assign(1, A)]
    s.lost(1, "signal 11")
    assert s.failed == {A: "2 workers died computing it; the last: signal 11"}
    assert s.done and s.joined(2) == []


def test_a_worker_that_died_of_something_else_costs_its_shards_nothing() -> None:
    s = schedule(A, B, max_attempts=1)
    s.joined(0)
    assert s.lost(0, "the node is gone", blame=False) == []
    assert s.joined(1) == [Assign(1, A), Assign(1, B)]
    assert not s.failed


def test_a_suspect_stays_one_when_its_next_worker_dies_of_something_else() -> None:
    s = schedule(A, B, depth=3)
    s.joined(0)
    s.lost(0, "signal 11")
    s.joined(1)
    assert s.computed(1, B, 1, []) == [Commit(1, B), Assign(1, A)]
    s.lost(1, "the node is gone", blame=False)
    assert s.joined(2) == [Assign(2, B)]
    assert s.leases(2) == (B,)  # and A, which killed a worker, still waits until it can run alone


def test_a_suspects_result_that_was_lost_makes_it_wait_again() -> None:
    s = schedule(A)
    s.joined(0)
    s.lost(0, "signal 11")
    s.joined(1)
    s.computed(1, A, 1, [AWAY])
    s.lost(1, "the node is gone", blame=False)
    assert s.num_waiting == 1
    assert s.joined(2) == [Assign(2, A)]


def test_a_lost_result_is_computed_again() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.computed(0, A, 1, [AWAY]) == []
    s.lost(0, "signal 11")
    assert s.joined(1) == [Assign(1, A)]  # B was under way: it waits
    assert s.computed(1, A, 1, []) == [Commit(1, A), Assign(1, B)]
    assert s.computed(1, B, 1, []) == [Commit(1, B)]


def test_shards_with_passing_failures_are_committed_at_the_end() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.computed(0, A, 1, [AWAY]) == []
    assert s.computed(0, B, 1, []) == [Commit(0, B), Commit(0, A)]


def test_held_shards_are_committed_as_soon_as_the_breaker_can_judge() -> None:
    s = schedule(A, B, C, D, min_failures=2)
    s.joined(0)
    assert s.computed(0, A, 1, [AWAY]) == [Assign(0, C)]
    s.joined(1)
    assert s.computed(0, B, 1, [])[:2] == [Commit(0, A), Commit(0, B)]


def test_an_open_breaker_is_raised() -> None:
    s = Schedule([A], Admission(BreakerSettings(max_transient_share=0.1, min_failures=1)))
    s.joined(0)
    with pytest.raises(CircuitOpenError, match="1 of 1 videos"):
        s.computed(0, A, 1, [AWAY])


def test_an_idle_worker_takes_over_what_another_has_not_begun() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.joined(1) == [Recall(0, B)]
    assert s.joined(2) == []  # nothing more to take
    assert s.skipped(0, B, recalled=True) == [Assign(1, B)]


def test_a_recall_that_came_too_late_changes_nothing() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.joined(1) == [Recall(0, B)]
    assert s.computed(0, A, 1, []) == [Commit(0, A)]
    assert s.computed(0, B, 1, []) == [Commit(0, B)]
    assert s.leases(1) == ()


def test_a_recall_that_came_too_late_is_made_elsewhere() -> None:
    s = schedule(A, B, C, D)
    s.joined(0)
    s.joined(1)
    assert s.joined(2) == [Recall(0, B)]
    assert s.computed(0, A, 1, []) == [Commit(0, A), Recall(1, D)]  # worker 0 goes on with B


def test_who_is_to_leave_ends_what_it_has_begun_and_gets_nothing_more() -> None:
    s = schedule(A, B, C)
    s.joined(0)
    assert s.retire(0) == [Recall(0, B)]
    assert s.computed(0, A, 1, []) == [Commit(0, A)]
    assert s.holds(0) and s.skipped(0, B, recalled=True) == []
    s.committed(0, A)
    assert not s.holds(0) and s.num_waiting == 2
    assert s.joined(1) == [Assign(1, B), Assign(1, C)]
    assert s.retire(7) == []  # it has not joined


def test_what_a_worker_is_slow_with_an_idle_one_computes_too() -> None:
    s = schedule(A, B)
    s.joined(0)
    assert s.copy(0) == []  # nobody is idle
    s = schedule(A)
    s.joined(0)
    s.joined(1)
    assert s.copy(0) == [Assign(1, A)] and s.is_copied(A)
    assert s.joined(2) == [] and s.copy(0) == s.copy(1) == []  # once is enough
    assert s.computed(1, A, 1, []) == [Commit(1, A)]
    assert s.leases(0) == () and s.is_busy(0) and not s.done
    assert s.committed(1, A) == [] and s.done  # nobody waits for worker 0
    assert s.computed(0, A, 1, []) == [Drop(0, A)] and not s.is_busy(0)


def test_who_works_in_vain_is_given_nothing_until_that_has_ended() -> None:
    s = schedule(A)
    s.joined(0)
    s.joined(1)
    s.copy(0)
    s.computed(1, A, 1, [])
    assert s.lost(1, "its node is gone", blame=False) == []  # worker 0 is not idle
    assert s.num_waiting == 1
    assert s.raised(0, A, "KeyError: 1") == [Assign(0, A)] and not s.failed


def test_a_copy_is_as_good_when_the_slow_worker_dies_or_raises() -> None:
    s = schedule(A, max_attempts=1)
    s.joined(0)
    s.joined(1)
    s.copy(0)
    assert s.lost(0, "signal 11") == [] and not s.failed
    assert s.raised(1, A, "KeyError: 1") == [] and s.failed == {A: "KeyError: 1"}
    s = schedule(A)
    s.joined(0)
    s.joined(1)
    s.copy(0)
    s.raised(0, A, "KeyError: 1")
    assert not s.failed and s.computed(1, A, 1, []) == [Commit(1, A)]
    assert s.lost(1, "signal 11", blame=False) == [Assign(0, A)]  # its result went with it


def test_a_suspect_is_not_copied_and_neither_is_what_could_be_taken_over() -> None:
    s = schedule(A)
    s.joined(0)
    s.lost(0, "signal 11")
    s.joined(1)
    s.joined(2)
    assert s.leases(1) == (A,) and s.copy(1) == []
    s = schedule(A, B)
    s.joined(0)
    assert s.joined(1) == [Recall(0, B)] and s.copy(0) == []


def test_time_is_up() -> None:
    s = schedule(A, B, C)
    s.joined(0)
    assert s.stop() == [Recall(0, B)]
    assert (s.num_waiting, s.out_of_time) == (0, True)
    assert s.computed(0, A, 1, [AWAY]) == []
    assert s.skipped(0, B, recalled=True) == [Commit(0, A)]
    assert s.joined(1) == []
    s.committed(0, A)
    assert s.done and s.out_of_time


def test_a_run_that_is_stopped_when_all_is_under_way_was_not_cut_short() -> None:
    s = schedule(A)
    s.joined(0)
    assert s.stop() == []
    s.computed(0, A, 1, [])
    s.committed(0, A)
    assert s.done and not s.out_of_time


# -------------------------------------------------------------------- all events in any order


@dataclass
class Place:
    """A worker as it is in truth; ``mail`` are recalls that have not reached it."""

    queue: list[ShardKey] = field(default_factory=list)
    begun: ShardKey | None = None
    mail: list[ShardKey] = field(default_factory=list)
    recalled: set[ShardKey] = field(default_factory=set)
    results: list[ShardKey] = field(default_factory=list)
    to_commit: list[ShardKey] = field(default_factory=list)
    leaves: bool = False
    in_vain: bool = False  # what it has begun was computed by another


class World:
    """Workers that do what they are told at their own pace, and the invariants of what they are told."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.keys = [key(n) for n in range(rng.randint(0, 12))]
        self.depth, self.max_attempts = rng.randint(1, 4), rng.randint(1, 3)
        self.most = rng.randint(1, 5)
        self.accidents = rng.randint(0, 8)
        self.killers = {k for k in self.keys if rng.random() < 0.1}
        self.broken = {k for k in self.keys if rng.random() < 0.1} - self.killers
        self.away = {k for k in self.keys if rng.random() < 0.3}
        self.schedule = schedule(
            *self.keys, depth=self.depth, max_attempts=self.max_attempts, min_failures=rng.choice([1, 5, 999])
        )
        self.workers: dict[int, Place] = {}
        self.joined = 0
        self.stopped = False
        self.deaths: Counter[ShardKey] = Counter()
        self.killed: Counter[ShardKey] = Counter()
        self.committed: set[ShardKey] = set()
        self.raised: set[ShardKey] = set()
        self.copied: set[ShardKey] = set()
        self.may_copy = True

    # what is so

    def holders(self, key: ShardKey) -> list[int]:
        return [n for n, w in self.workers.items() if key in [*w.queue, *w.results]]

    def given_up(self) -> set[ShardKey]:
        return self.raised | {k for k, n in self.deaths.items() if n >= self.max_attempts}

    def held(self) -> set[ShardKey]:
        return {k for w in self.workers.values() for k in [*w.queue, *w.results]}

    def waiting(self) -> set[ShardKey]:
        return set(self.keys) - self.held() - self.committed - self.given_up()

    # what the schedule says

    def apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            worker = self.workers[action.worker]
            if isinstance(action, Assign):
                assert not self.stopped, "nothing is begun after the end"
                assert not worker.leaves, "who leaves is given nothing more"
                if action.key not in self.waiting():
                    self.check_copy(action)
                assert len(worker.queue) < self.depth
                assert not any(self.deaths[k] for k in worker.queue), "a suspect shares its worker"
                if self.deaths[action.key]:
                    assert not worker.queue, "a suspect shares its worker"
                    assert all(self.deaths[k] for k in self.waiting()), "a suspect runs before the others"
                worker.queue.append(action.key)
            elif isinstance(action, Commit):
                assert action.key in worker.results and action.key not in worker.to_commit
                worker.to_commit.append(action.key)
            elif isinstance(action, Drop):
                assert action.key not in [*worker.queue, *worker.results], "its result is wanted"
            else:
                assert action.key in worker.queue
                worker.mail.append(action.key)
        self.check()
        if any(isinstance(action, Recall) for action in actions) and not self.stopped:
            behind = self.recalled_of_not_begun(of_all=False)
            leave = sum(
                not w.queue and w.leaves for w in self.workers.values()
            )  # after it was recalled for them
            assert sum(behind) <= self.idle() + leave, "more is recalled than there is anyone to do"

    def check_copy(self, action: Assign) -> None:
        (slow,) = self.holders(action.key)
        assert self.workers[slow].begun == action.key == self.workers[slow].queue[0], "it is not under way"
        assert action.key not in self.copied and not self.deaths[action.key]
        assert not self.workers[action.worker].queue and not self.waiting(), "there is other work"
        self.copied.add(action.key)

    def check(self) -> None:
        for number, worker in self.workers.items():
            assert self.schedule.leases(number) == tuple(worker.queue)
        left = self.waiting()
        assert self.schedule.num_waiting == (0 if self.stopped else len(left))
        assert self.schedule.done == (not self.held() and (self.stopped or not left))
        assert set(self.schedule.failed) == self.given_up()
        self.check_sharing(left)

    def check_sharing(self, left: set[ShardKey]) -> None:
        """No worker is idle while another has something that was not begun, unless it is on the way."""
        idle, behind = self.idle(), self.recalled_of_not_begun()
        if not self.stopped:
            assert not (idle and left), "a worker is idle while shards wait"
        assert sum(behind) >= min(idle, len(behind))

    def staying(self) -> int:
        return sum(not w.leaves for w in self.workers.values())

    def idle(self) -> int:
        return sum(not (w.queue or w.leaves or w.in_vain) for w in self.workers.values())

    def recalled_of_not_begun(self, *, of_all: bool = True) -> list[bool]:
        """For each lease behind another, whether it is on its way back; ``of_all``: of those who leave too."""
        asked = {n: {*w.mail, *w.recalled} for n, w in self.workers.items() if of_all or not w.leaves}
        return [k in asked[n] for n in asked for k in self.not_begun(self.workers[n])]

    def not_begun(self, worker: Place) -> list[ShardKey]:
        return worker.queue[0 if worker.in_vain else 1 :]

    # what happens

    def choices(self) -> list[tuple[str, int]]:
        """Everything that may happen next, but for accidents."""
        found = [("join", 0)] if self.schedule.num_waiting and self.staying() < self.most else []
        for number, w in self.workers.items():
            found += [("work", number)] if w.queue or w.begun else []
            found += [("commit", number)] if w.to_commit else []
            found += [("mail", number)] if w.mail else []
            found += [("gone", number)] if w.leaves and not self.schedule.holds(number) else []
        return found

    def step(self) -> None:
        if self.accidents and self.workers and self.rng.random() < 0.08:
            self.accidents -= 1
            self.lose(self.rng.choice(list(self.workers)), blame=self.rng.random() < 0.5)
            return
        if self.rng.random() < 0.02 and not self.stopped:
            self.stopped = True
            self.apply(self.schedule.stop())
            return
        if self.rng.random() < 0.05 and self.staying() < self.most:  # one that came late finds little to do
            self.join()
            return
        if self.rng.random() < 0.03 and self.workers:
            self.retire(self.rng.choice(list(self.workers)))
            return
        slow = [n for n, w in self.workers.items() if w.begun]
        if self.may_copy and slow and self.rng.random() < 0.2:
            self.apply(self.schedule.copy(self.rng.choice(slow)))
            return
        choices = self.choices()
        assert choices, "nothing can happen and the run has not ended"
        what, number = self.rng.choice(choices)
        if what == "join":
            self.join()
        elif what == "work":
            self.work(number)
        elif what == "commit":
            self.commit(number)
        elif what == "gone":
            self.lose(number, blame=False)
        else:
            self.deliver(number)

    def join(self) -> None:
        self.workers[self.joined] = Place()
        self.joined += 1
        self.apply(self.schedule.joined(self.joined - 1))

    def retire(self, number: int) -> None:
        worker = self.workers[number]
        worker.leaves = True
        self.apply(self.schedule.retire(number))
        back = {*worker.mail, *worker.recalled}
        assert all(k in back for k in self.not_begun(worker)), (
            "what a worker that leaves has not begun is asked back"
        )

    def lose(self, number: int, *, blame: bool) -> None:
        worker = self.workers.pop(number)
        held = [] if worker.in_vain else [*worker.queue, *worker.results]
        suspect = next(iter(held), None) if blame else None
        if suspect is not None and not self.holders(suspect):
            self.deaths[suspect] += 1
        self.apply(self.schedule.lost(number, "an accident", blame=blame))

    def work(self, number: int) -> None:
        """The worker goes half a step on with the first of its shards."""
        worker = self.workers[number]
        if worker.in_vain:
            first, worker.begun, worker.in_vain = worker.begun, None, False
            answer = self.schedule.raised if self.rng.random() < 0.3 else None
            if answer is not None:
                self.apply(answer(number, first, "KeyError: 1"))
            else:
                self.apply(self.schedule.computed(number, first, 1, []))
            return
        first = worker.queue[0]
        if worker.begun is None:
            if first not in worker.recalled:
                worker.begun = first
                return
            worker.recalled.discard(first)
            worker.queue.pop(0)
            self.apply(self.schedule.skipped(number, first, recalled=True))
            return
        if first in self.killers:
            self.killed[first] += 1
            self.lose(number, blame=True)
            return
        worker.begun = None
        worker.queue.pop(0)
        worker.mail = [k for k in worker.mail if k != first]
        if first in self.broken:
            if not self.holders(first):
                self.raised.add(first)
            self.apply(self.schedule.raised(number, first, "KeyError: 1"))
        elif self.rng.random() < 0.05 and first not in self.copied:
            self.committed.add(first)
            self.apply(self.schedule.skipped(number, first, recalled=False))
        else:
            worker.results.append(first)
            for other in self.workers.values():
                if first in other.queue:
                    other.queue.remove(first)
                    other.in_vain = True
            failures = [AWAY] * (first in self.away)
            self.apply(self.schedule.computed(number, first, 1, failures))

    def commit(self, number: int) -> None:
        worker = self.workers[number]
        done = worker.to_commit.pop(self.rng.randrange(len(worker.to_commit)))
        worker.results.remove(done)
        assert done not in self.committed
        self.committed.add(done)
        self.apply(self.schedule.committed(number, done))

    def deliver(self, number: int) -> None:
        """A recall arrives: in time or too late; and is answered at once, or when its turn comes."""
        worker = self.workers[number]
        recalled = worker.mail.pop(0)
        if recalled == worker.begun:
            return
        if self.rng.random() < 0.5:
            worker.recalled.add(recalled)
            return
        worker.queue.remove(recalled)
        self.apply(self.schedule.skipped(number, recalled, recalled=True))


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_every_shard_ends_once_whatever_happens(seed: int) -> None:
    world = World(random.Random(seed))
    world.check()
    for _ in range(2000):
        if world.schedule.done:
            break
        world.step()
    assert world.schedule.done, "the run does not end"
    left, given_up = world.waiting(), world.given_up()
    assert world.committed | given_up | left == set(world.keys)
    assert not world.committed & given_up
    assert set(world.schedule.failed) == given_up
    assert world.schedule.out_of_time == bool(left)
    assert world.stopped or not left


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_a_killer_costs_so_many_workers_and_the_others_nothing(seed: int) -> None:
    world = World(random.Random(seed))
    world.accidents, world.stopped, world.broken, world.may_copy = 0, False, set(), False
    for _ in range(2000):
        if world.schedule.done or world.stopped:
            break
        world.step()
    if world.stopped:
        return
    assert world.killed == dict.fromkeys(world.killers, world.max_attempts)
    assert set(world.schedule.failed) == world.killers
    assert world.committed == set(world.keys) - world.killers
