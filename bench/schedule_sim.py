"""The driver's schedule under thousands of workers, simulated: how near a run comes to the ideal, and what it costs.

    python -m bench.schedule_sim [--workers 1000 10000] [--clips 1e8] [--clip-seconds 0.1] [--seed 0]

The very `cluster.schedule.Schedule` that drives a run decides; only workers and time are made up. Videos are
heavy-tailed (lognormal, up to ``--longest`` clips; a video is never split), planned by the very planner. Of the
workers a share are stragglers, for the whole run; a share are preempted once, at any moment, and replaced a while
later. The ideal is all clips over all workers, none of them slow or away.

Messages are calls to workers and their answers. Seconds of the driver are those spent in the schedule; what Ray costs
beside is measured by `bench.driver_rate`. ``copies`` are shards that an idle worker computed too, because another was
slow.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import psutil

from cluster.pace import Pace, long_ones_first
from cluster.schedule import Action, Assign, Commit, Recall, Schedule
from pipeline.admission import Admission
from pipeline.breaker import BreakerSettings
from pipeline.plan import ShardFiller, auto_shard_clips
from schemas.shard import ShardKey

START_SECONDS, COMMIT_SECONDS, MESSAGE_SECONDS, LOOK_SECONDS = 30.0, 0.5, 0.01, 2.0


@dataclass(frozen=True)
class World:
    """What is simulated. Shares are of the workers."""

    workers: int
    clips: int
    clip_seconds: float
    stragglers: float
    slowdown: float
    preempted: float
    away_seconds: float
    longest: int
    seed: int


@dataclass
class Worker:
    """``begun`` is the shard that it computes; ``queue`` holds it and what comes after."""

    speed: float
    queue: deque[ShardKey] = field(default_factory=deque)
    begun: ShardKey | None = None
    began_at: float = 0.0


@dataclass
class Outcome:
    """What came of a world."""

    shards: int
    ideal_seconds: float
    seconds: float = 0.0
    copies: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    busiest_second: int = 0
    driver_seconds: float = 0.0
    driver_mb: float = 0.0


def shard_clips(world: World, rng: np.random.Generator) -> np.ndarray:
    """Clips of each shard; (S,)."""
    mean = 20
    videos = rng.lognormal(0.0, 1.5, int(world.clips / mean * 1.5))
    clips_N = np.clip(videos / videos.mean() * mean, 1, world.longest).astype(np.int32)
    clips_N = clips_N[: int(np.searchsorted(np.cumsum(clips_N, dtype=np.int64), world.clips))]
    total = int(clips_N.sum(dtype=np.int64))
    filler = ShardFiller(auto_shard_clips(total), total)
    return np.bincount(filler.assign(clips_N), weights=clips_N)


class Simulation:
    """One world, from the first worker to the last commit."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = np.random.default_rng(world.seed)
        self.clips_S = shard_clips(world, self.rng)
        before = _rss_mb()
        keys = [ShardKey(1, n) for n in range(len(self.clips_S))]
        keys = long_ones_first(keys, self.clips_S.astype(int).tolist())
        self.schedule = Schedule(keys, Admission(BreakerSettings()))
        self.outcome = Outcome(
            len(keys), float(self.clips_S.sum()) * world.clip_seconds / world.workers + START_SECONDS
        )
        self.workers: dict[int, Worker] = {}
        self.numbers, self.order = itertools.count(), itertools.count()
        self.events: list[tuple[float, int, str, int, ShardKey | None]] = []
        self.committed: Counter[ShardKey] = Counter()
        self.second: Counter[int] = Counter()
        self.pace, self.looks = Pace(), False
        self.now = 0.0
        self.before_mb = before

    def run(self) -> Outcome:
        world = self.world
        slow = self.rng.random(world.workers) < world.stragglers
        self.speeds = {n: 1 / world.slowdown if s else 1.0 for n, s in enumerate(slow)}
        for _ in range(world.workers):
            self.at(START_SECONDS * self.rng.uniform(0.8, 1.2), "join", next(self.numbers))
        for victim in self.rng.choice(world.workers, round(world.preempted * world.workers), replace=False):
            self.at(self.rng.uniform(START_SECONDS, self.outcome.ideal_seconds), "preempt", int(victim))
        while not self.schedule.done:
            self.now, _, what, worker, key = heapq.heappop(self.events)
            getattr(self, what)(worker, key)
        o = self.outcome
        o.seconds = self.now
        o.driver_mb = _rss_mb() - self.before_mb
        o.busiest_second = max(self.second.values())
        if set(self.committed.values()) != {1} or len(self.committed) != o.shards:
            raise ValueError("a shard was lost or committed twice")
        return o

    def at(self, when: float, what: str, worker: int, key: ShardKey | None = None) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, worker, key))

    def tell(self, answer: str, *args: object, **kwargs: object) -> None:
        """An event for the schedule, and what it makes of it."""
        self.count(answer)
        started = time.perf_counter()
        actions: list[Action] = getattr(self.schedule, answer)(*args, **kwargs)
        self.outcome.driver_seconds += time.perf_counter() - started
        for action in actions:
            self.count(type(action).__name__)
            worker = self.workers[action.worker]
            if isinstance(action, Assign):
                worker.queue.append(action.key)
                self.go_on(action.worker)
            elif isinstance(action, Commit):
                self.at(self.now + COMMIT_SECONDS, "commit", action.worker, action.key)
            elif isinstance(action, Recall):
                self.at(self.now + MESSAGE_SECONDS, "recall", action.worker, action.key)

    def count(self, message: str) -> None:
        self.outcome.messages[message] += 1
        self.second[int(self.now)] += 1

    def go_on(self, number: int) -> None:
        worker = self.workers[number]
        if worker.begun is None and worker.queue:
            worker.begun, worker.began_at = worker.queue[0], self.now
            seconds = self.clips_S[worker.begun.number] * self.world.clip_seconds / worker.speed
            self.at(self.now + MESSAGE_SECONDS + seconds, "end", number, worker.begun)

    # ---------------------------------------------------------------- what happens

    def join(self, number: int, _: ShardKey | None) -> None:
        self.workers[number] = Worker(self.speeds.get(number, 1.0))
        self.tell("joined", number)

    def end(self, number: int, key: ShardKey) -> None:
        worker = self.workers.get(number)
        if worker is None or worker.begun != key:
            return
        worker.queue.popleft()
        worker.begun = None
        if self.schedule.is_wanted(number, key):
            self.pace.note(int(self.clips_S[key.number]), self.now - worker.began_at)
        self.tell("computed", number, key, 1, [])
        self.go_on(number)
        if not self.schedule.num_waiting and not self.looks:
            self.looks = True
            self.at(self.now, "look", number)

    def look(self, number: int, _: ShardKey | None) -> None:
        """As `cluster.run` does: every few seconds, once nothing waits."""
        for worker, found in list(self.workers.items()):
            for key in self.schedule.leases(worker)[:1]:
                clips, took = int(self.clips_S[key.number]), self.now - found.began_at
                if found.begun == key and self.pace.is_slow(clips, took):
                    before = self.schedule.is_copied(key)
                    self.tell("copy", worker)
                    self.outcome.copies += self.schedule.is_copied(key) and not before
        self.at(self.now + LOOK_SECONDS, "look", number)

    def commit(self, number: int, key: ShardKey) -> None:
        if number in self.workers:
            self.committed[key] += 1
            self.tell("committed", number, key)

    def recall(self, number: int, key: ShardKey) -> None:
        worker = self.workers.get(number)
        if worker is not None and key in worker.queue and worker.begun != key:
            worker.queue.remove(key)
            self.tell("skipped", number, key, recalled=True)

    def preempt(self, number: int, _: ShardKey | None) -> None:
        if self.workers.pop(number, None) is None:
            return
        self.tell("lost", number, "preempted", blame=False)
        self.at(self.now + self.world.away_seconds + START_SECONDS, "join", next(self.numbers))


def _rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--clips", type=float, default=1e8)
    parser.add_argument("--clip-seconds", type=float, default=0.1)
    parser.add_argument("--stragglers", type=float, default=0.01)
    parser.add_argument("--slowdown", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--preempted", type=float, default=0.01)
    parser.add_argument("--away-seconds", type=float, default=180.0)
    parser.add_argument("--longest", type=int, default=5400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(
        "workers  slow  shards   ideal s   took s  ratio  messages/s  busiest  driver s  share  copies   MB"
    )
    for workers, slowdown in itertools.product(args.workers, args.slowdown):
        world = World(
            workers,
            int(args.clips),
            args.clip_seconds,
            args.stragglers,
            slowdown,
            args.preempted,
            args.away_seconds,
            args.longest,
            args.seed,
        )
        o = Simulation(world).run()
        rate = o.messages.total() / o.seconds
        print(
            f"{workers:7d} {slowdown:4.0f}x {o.shards:7d} {o.ideal_seconds:9.0f} {o.seconds:8.0f} "
            f"{o.seconds / o.ideal_seconds:6.3f} {rate:11.1f} {o.busiest_second:8d} {o.driver_seconds:9.2f} "
            f"{o.driver_seconds / o.seconds:6.4f} {o.copies:7d} {o.driver_mb:4.0f}"
        )


if __name__ == "__main__":
    main()
