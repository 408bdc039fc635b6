"""The decode queue: order, bounds and blame, under decoders that answer and die in any order."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.decode_calls import Death, DecodeCall, Part
from cluster.decode_queue import CALLS_AHEAD, CHUNK_BYTES, DecodeQueue, num_bytes
from pipeline.frames import Clip, Event, FrameRequest, Probed, ProbeRequest, Request, VideoEnd
from schemas.clip import ClipSpan, ClipSpec
from schemas.shard import Failure, Shard, ShardKey
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video

SIDE = 512
REQUEST = FrameRequest(
    ClipSpec(num_frames=1, seconds=1.0), ViewSpec(width=SIDE, height=SIDE), DecodeSpec(backend="pyav")
)
SECOND = FrameRequest(
    ClipSpec(num_frames=1, seconds=1.0), ViewSpec(width=SIDE, height=SIDE), DecodeSpec(interpolation="area")
)
PROBE = ProbeRequest()
EACH = REQUEST.clip_bytes
A_CALL = CHUNK_BYTES // EACH
FRAMES = np.broadcast_to(np.uint8(0), (1, 1, SIDE, SIDE, 3))
CRASH = Death("DecoderCrashed", "signal 11")
KILLED = Death("DecoderKilled", "out of memory", permanent=False)
NODE_GONE = Death("DecoderKilled", "the node is gone", permanent=False, blame=False)


def clip(video_id: str, number: int, damage: str = "") -> Clip:
    start = number * 1_000_000
    return Clip(video_id, ClipSpan(start, start + 1_000_000, (start + 500_000,)), FRAMES, damage, 1.0)


def shard(number: int, *videos: tuple[str, int]) -> Shard:
    return Shard(ShardKey(1, number), tuple(Video(v, f"{v}.mp4", 0, n * 1_000_000, n) for v, n in videos))


def queue(max_bytes: int = 1 << 30, max_attempts: int = 3, decoders: int = 1) -> DecodeQueue:
    q = DecodeQueue(max_bytes, max_attempts, "pyav")
    for number in range(decoders):
        q.joined(number)
    return q


def take_all(q: DecodeQueue) -> list[Event]:
    found = []
    while (event := q.take()) is not None:
        found.append(event)
    return found


def names(calls: list[tuple[int, DecodeCall]]) -> list[tuple[int, str, int | None]]:
    return [(d, "+".join(p.video.video_id for p in c.parts), c.max_clips) for d, c in calls]


# -------------------------------------------------------------------- one thing at a time


def test_a_frame_is_as_large_as_it_was_counted() -> None:
    assert num_bytes(clip("a", 0)) == EACH == SIDE * SIDE * 3
    assert A_CALL == 5


def test_videos_go_in_plan_order_to_the_decoder_with_the_fewest_calls() -> None:
    q = queue(decoders=2)
    q.add(shard(0, ("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)), REQUEST)
    made = q.calls()
    assert [c[1:] for c in names(made)] == [("a", None), ("b", None), ("c", None), ("d", None)]
    assert Counter(d for d, _ in made) == {0: CALLS_AHEAD, 1: CALLS_AHEAD}
    assert q.calls() == []


def test_a_long_video_comes_in_parts_from_one_decoder() -> None:
    q = queue(decoders=2)
    q.add(shard(0, ("a", 12)), REQUEST)
    assert names(q.calls()) == [(0, "a", 5), (0, "a", 5)]
    q.arrived(0, [[clip("a", n) for n in range(5)]])
    assert names(q.calls()) == [(0, "a", None)]
    assert q.waiting_bytes == 12 * EACH
    q.arrived(1, [[clip("a", n) for n in range(5, 10)]])
    q.arrived(2, [[clip("a", 10), clip("a", 11), VideoEnd("a", None)]])
    assert len(take_all(q)) == 13
    assert q.at_end and q.waiting_bytes == 0


def test_answers_of_one_decoder_may_overtake_each_other() -> None:
    """Frames on another node are fetched before their answer is there; an end without frames is not."""
    q = queue()
    q.add(shard(0, ("a", 10)), REQUEST)
    first, second = (call.number for _, call in q.calls())
    q.arrived(second, [[clip("a", 5), VideoEnd("a", None)]])
    assert q.take() is None
    q.arrived(first, [[clip("a", n) for n in range(5)]])
    got = take_all(q)
    assert [e.span.start_us for e in got if isinstance(e, Clip)] == [n * 1_000_000 for n in range(6)]
    assert isinstance(got[-1], VideoEnd) and q.waiting_bytes == 0


def test_the_bound_holds_back_all_but_what_the_reader_waits_for() -> None:
    q = queue(max_bytes=1, decoders=2)
    q.add(shard(0, ("a", 1), ("b", 1)), REQUEST)
    assert names(q.calls()) == [(0, "a", None)]
    q.arrived(0, [[clip("a", 0), VideoEnd("a", None)]])
    assert q.calls() == []
    assert isinstance(q.take(), Clip)
    assert q.calls() == []  # the end of the first is there to be read
    assert isinstance(q.take(), VideoEnd)
    assert [c[1:] for c in names(q.calls())] == [("b", None)]


def test_probes_go_in_lots_and_are_tried_singly_when_one_of_them_killed() -> None:
    q = queue(max_attempts=1)
    q.add(shard(0, *[(f"v{n:02}", 0) for n in range(20)]), PROBE)
    first, second = (call for _, call in q.calls())
    assert (len(first.parts), len(second.parts)) == (16, 4)
    q.lost(0, CRASH)
    q.joined(1)
    assert names(q.calls()) == [(1, "v00", None)]
    assert take_all(q) == []
    q.arrived(2, [[Probed("v00", {}), VideoEnd("v00", None)]])
    assert names(q.calls()) == [(1, "v01", None)]
    q.lost(1, CRASH)
    _, end = take_all(q)[1:]
    assert isinstance(end, VideoEnd) and end.failure is not None
    f = end.failure
    assert (f.video_id, f.stage, f.error, f.attempts, f.missing_rows) == ("v01", "probe", CRASH.error, 1, 1)


def test_a_killer_ends_with_what_came_of_it() -> None:
    q = queue(max_attempts=2)
    q.add(shard(0, ("a", 12)), REQUEST)
    q.calls()
    q.arrived(0, [[clip("a", n, "torn" * (n == 1)) for n in range(5)]])
    q.lost(0, CRASH)
    q.joined(1)
    ((_, call), *_) = q.calls()
    before = call.parts[0].before
    assert (before.attempts, before.num_clips, before.last_start_us) == (1, 5, 4_000_000)
    assert (before.num_damaged, before.damage) == (1, "torn")
    q.lost(1, CRASH)
    *clips, end = take_all(q)
    assert len(clips) == 5 and isinstance(end, VideoEnd)
    assert end.failure == Failure(
        "a", "a.mp4", "decode", "DecoderCrashed", "signal 11", True, 2, 7, 1, "pyav"
    )
    assert q.waiting_bytes == 0 and q.at_end


def test_after_a_passing_death_the_clips_that_came_are_counted_as_missing() -> None:
    q = queue(max_attempts=1)
    q.add(shard(0, ("a", 7)), REQUEST)
    q.calls()
    q.arrived(0, [[clip("a", n, "torn") for n in range(5)]])
    q.lost(0, KILLED)
    *_, end = take_all(q)
    assert isinstance(end, VideoEnd) and end.failure is not None
    assert (end.failure.permanent, end.failure.missing_rows, end.failure.damaged_rows) == (False, 7, 0)


def test_who_was_queued_behind_a_killer_is_not_blamed() -> None:
    q = queue(max_attempts=1)
    q.add(shard(0, ("a", 1), ("b", 1)), REQUEST)
    q.calls()
    q.lost(0, CRASH)
    q.joined(1)
    assert names(q.calls()) == [(1, "b", None)]
    assert q.working_on(1) == "b.mp4"


def test_nobody_is_blamed_for_a_lost_node() -> None:
    q = queue(max_attempts=1)
    q.add(shard(0, ("a", 1), ("b", 1)), REQUEST)
    q.calls()
    q.lost(0, NODE_GONE)
    q.joined(1)
    assert names(q.calls()) == [(1, "a", None), (1, "b", None)]


def test_a_suspect_has_its_decoder_to_itself() -> None:
    q = queue(decoders=2)
    q.add(shard(0, ("a", 1), ("b", 1), ("c", 1), ("d", 1)), REQUEST)
    made = {p.video.video_id: (d, c.number) for d, c in q.calls() for p in c.parts}
    q.lost(made["a"][0], CRASH)
    assert q.calls() == []  # the other decoder has something to do
    q.joined(2)
    assert names(q.calls()) == [(2, "a", None)]  # and nothing behind it


def test_a_dropped_shard_frees_its_bytes_and_its_late_answers_are_nobodys() -> None:
    q = queue()
    first, second = shard(0, ("a", 12)), shard(1, ("b", 1))
    q.add(first, REQUEST)
    q.calls()
    q.arrived(0, [[clip("a", n) for n in range(5)]])
    q.drop(first.key)
    assert q.waiting_bytes == 5 * EACH  # of the call that is still open
    q.add(second, REQUEST)
    q.arrived(1, [[clip("a", n) for n in range(5, 10)]])
    assert q.waiting_bytes == 0 and q.take() is None
    assert names(q.calls()) == [(0, "b", None)]


def test_a_shard_that_is_added_again_is_decoded_from_its_start() -> None:
    """No two tries have the same ticket: the decoder would go on where the other ended."""
    q = queue()
    tickets = set()
    for _ in range(50):
        q.add(shard(0, ("a", 5)), REQUEST)
        ((_, call),) = q.calls()
        tickets.add(call.parts[0].ticket)
        q.arrived(call.number, [[clip("a", 0)]])
        q.drop(ShardKey(1, 0))
        del call
    assert len(tickets) == 50


def test_a_shard_that_is_streamed_first_does_not_cost_the_others_their_prefetch() -> None:
    """A worker may be told what comes next before it has begun what comes now."""
    q = queue()
    now, then = shard(0, ("a", 1)), shard(1, ("b", 1))
    q.add(then, REQUEST)
    ((_, early),) = q.calls()
    q.put_first(now, REQUEST)
    assert q.has(now, REQUEST) and q.has(then, REQUEST)
    assert q.waits_for == "a.mp4"
    assert names(q.calls()) == [(0, "a", None)]
    q.arrived(early.number, [[clip("b", 0), VideoEnd("b", None)]])
    assert names(q.calls()) == [(0, "b", None)]
    assert q.take() is None


def test_a_shard_that_is_streamed_out_of_turn_drops_those_before_it() -> None:
    q = queue()
    a, b, c = (shard(n, (name, 1)) for n, name in enumerate("abc"))
    for one in (a, b, c):
        q.add(one, REQUEST)
    q.put_first(b, REQUEST)
    assert [q.has(one, REQUEST) for one in (a, b, c)] == [False, True, True]
    assert [c[1:] for c in names(q.calls())] == [("b", None), ("c", None)]


def test_a_second_look_takes_decoders_from_what_was_prefetched_and_throws_nothing_away() -> None:
    q = queue(max_bytes=12 * EACH)
    now, then = shard(0, ("a", 1)), shard(1, ("b", 40))
    q.add(now, REQUEST)
    q.add(then, REQUEST)
    (_, first), (_, early) = q.calls()
    assert names([(0, first), (0, early)]) == [(0, "a", None), (0, "b", A_CALL)]
    q.arrived(first.number, [[clip("a", 0), VideoEnd("a", None)]])
    q.arrived(early.number, [[clip("b", n) for n in range(A_CALL)]])
    assert names(q.calls()) == [(0, "b", A_CALL)]
    assert len(take_all(q)) == 2
    q.drop(now.key)
    again = replace(now, videos=(replace(now.videos[0], only_us=(0,)),))
    q.interject(again, SECOND)
    ((_, ahead),) = q.calls()
    assert (ahead.request, [p.video for p in ahead.parts]) == (SECOND, list(again.videos))
    q.arrived(ahead.number, [[clip("a", 0), VideoEnd("a", None)]])
    assert q.take() is None  # the answer to the call before has not come
    q.arrived(ahead.number - 1, [[clip("b", n) for n in range(A_CALL, 2 * A_CALL)]])  # nobody's any more
    assert [e.video_id for e in take_all(q)] == ["a", "a"]
    q.drop(now.key)
    ((_, after),) = q.calls()
    assert after.parts[0].before.last_start_us == (A_CALL - 1) * 1_000_000
    assert len(take_all(q)) == A_CALL


def test_adding_twice_is_adding_once() -> None:
    q = queue()
    one = shard(0, ("a", 1))
    q.add(one, REQUEST)
    q.add(one, REQUEST)
    assert q.has(one, REQUEST) and not q.has(one, PROBE)
    assert len(q.calls()) == 1
    q.drop(one.key)
    assert not q.has(one, REQUEST) and q.at_end and q.waits_for == ""


def test_bounds_are_positive() -> None:
    for max_bytes, max_attempts in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"{max_bytes}, {max_attempts}"):
            DecodeQueue(max_bytes, max_attempts)


# -------------------------------------------------------------------- everything in any order


@dataclass(frozen=True)
class Nature:
    """What is the matter with a video."""

    num_clips: int
    ends_at: int
    kills_at: int | None
    death: Death


class Actor:
    """A decoder as `cluster.decode_actor` is one: answers in turn, goes on with the ticket it has."""

    def __init__(self, natures: dict[str, Nature]) -> None:
        self.natures = natures
        self.todo: deque[DecodeCall] = deque()
        self.answers: dict[int, list[list[Event]]] = {}
        self.ticket, self.events = "", iter(())

    def answer(self) -> Part | None:
        """Do the first call; the part that killed the process, if one did."""
        call = self.todo[0]
        found = []
        for part in call.parts:
            if part.ticket != self.ticket or isinstance(call.request, ProbeRequest):
                self.ticket, self.events = part.ticket, self.of(part, call.request)
            events: list[Event] = []
            clips = 0
            try:
                for event in self.events:
                    events.append(event)
                    clips += isinstance(event, Clip)
                    if clips == call.max_clips:
                        break
            except MemoryError:
                return part
            found.append(events)
        self.todo.popleft()
        self.answers[call.number] = found
        return None

    def of(self, part: Part, request: Request) -> Iterator[Event]:
        nature = self.natures[part.video.video_id]
        if isinstance(request, ProbeRequest):
            if nature.kills_at is not None:
                raise MemoryError
            yield Probed(part.video.video_id, {})
        else:
            wanted = wanted_of(part.video)
            for n in range(nature.num_clips):
                if n == nature.kills_at and wanted and n <= wanted[-1]:
                    raise MemoryError
                if n in wanted and n < nature.ends_at and n * 1_000_000 > part.before.last_start_us:
                    yield clip(part.video.video_id, n)
        yield VideoEnd(part.video.video_id, None)


def wanted_of(video: Video) -> list[int]:
    """Numbers of the clips that are wanted."""
    every = range(video.num_clips)
    return [n for n in every if video.only_us is None or n * 1_000_000 in video.only_us]


@dataclass
class Seen:
    """What the reader was given of one shard, or of a second look at it."""

    ends: list[str] = field(default_factory=list)
    clips: dict[str, list[int]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


class World:
    """One reader, several decoders, and no agreement about who is next."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.natures: dict[str, Nature] = {}
        self.request: Request = PROBE if rng.random() < 0.25 else REQUEST
        self.shards = [self.make_shard(n) for n in range(rng.randint(1, 4))]
        self.max_attempts = rng.randint(1, 3)
        self.max_bytes = rng.choice([1, EACH - 1, EACH, 3 * EACH, A_CALL * EACH, 12 * EACH, 100 * EACH])
        self.q = DecodeQueue(self.max_bytes, self.max_attempts, "pyav")
        self.num_decoders, self.next_number = rng.randint(1, 4), 0
        self.actors: dict[int, Actor] = {}
        self.accidents, self.drops = rng.randint(0, 5), rng.randint(0, 3)
        self.blamed: Counter[str] = Counter()
        self.suspects: set[str] = set()
        self.at, self.seen = 0, [Seen() for _ in self.shards]
        self.streaming = False
        self.second: Shard | None = None
        self.looks: list[tuple[Shard, Seen]] = []
        self.wants_more = rng.choice([0.0, 0.5, 1.0])
        self.eager = rng.random()

    def make_shard(self, number: int) -> Shard:
        videos = []
        for v in range(self.rng.randint(0, 7)):
            count = self.rng.choice([0, 1, 1, 2, 5, 6, 10, 17])
            ends = self.rng.randint(0, count) if self.rng.random() < 0.2 else count
            kills = self.rng.randrange(count) if count and self.rng.random() < 0.15 else None
            name = f"s{number}v{v}"
            self.natures[name] = Nature(count, ends, kills, self.rng.choice([CRASH, KILLED]))
            videos.append((name, count))
        return shard(number, *videos)

    @property
    def done(self) -> bool:
        return self.at == len(self.shards)

    # what may happen

    def step(self) -> None:
        for number, call in self.q.calls():
            self.check_call(number, call)
            self.actors[number].todo.append(call)
        self.check()
        if self.accidents and self.actors and self.rng.random() < 0.05:
            self.accidents -= 1
            self.die(self.rng.choice(list(self.actors)), NODE_GONE, None)
            return
        ahead = self.shards[self.at + 1 :] if self.streaming else self.shards[self.at :]
        if ahead and self.rng.random() < 0.1:
            for one in ahead[: self.rng.randint(1, 2)]:
                self.q.add(one, self.request)
            return
        if ahead and self.drops and self.rng.random() < 0.05:
            self.drops -= 1
            self.forget(self.rng.choice(ahead))
            return
        self.progress()

    def progress(self) -> None:
        choices = [("work", n) for n, actor in self.actors.items() if actor.todo]
        choices += [("arrive", n) for n, actor in self.actors.items() if actor.answers]
        choices += [("join", 0)] * (len(self.actors) < self.num_decoders)
        if not self.streaming or self.readable():
            choices = [("read", 0)] if choices == [] or self.rng.random() < self.eager else choices
        assert choices, f"nobody can go on; the reader waits for {self.q.waits_for!r}"
        what, number = self.rng.choice(choices)
        {"work": self.work, "arrive": self.arrive, "join": self.join, "read": self.read}[what](number)

    def readable(self) -> bool:
        if self.q.at_end:
            return True
        job = self.q._jobs[0]
        return bool(job.videos[job.head].events)

    def join(self, _: int) -> None:
        self.actors[self.next_number] = Actor(self.natures)
        self.q.joined(self.next_number)
        self.next_number += 1

    def work(self, number: int) -> None:
        actor = self.actors[number]
        killer = actor.answer()
        if killer is not None:
            while actor.answers:
                self.arrive(number)
            self.die(number, self.natures[killer.video.video_id].death, killer)

    def arrive(self, number: int) -> None:
        actor = self.actors[number]
        which = self.rng.choice(list(actor.answers))
        self.q.arrived(which, actor.answers.pop(which))

    def die(self, number: int, death: Death, killer: Part | None) -> None:
        actor = self.actors.pop(number)
        opened = self.q._open[actor.todo[0].number] if killer is not None else None
        if opened is not None and killer is not None and not opened.videos[0].ended and opened.still_meant:
            suspects = {p.video.video_id for p in actor.todo[0].parts}
            self.suspects |= suspects
            if len(suspects) == 1:
                self.blamed[killer.video.video_id] += 1
        self.q.lost(number, death)
        for which, events in actor.answers.items():  # too late
            self.q.arrived(which, events)

    def forget(self, one: Shard) -> None:
        self.q.drop(one.key)
        self.acquit(one)

    def acquit(self, one: Shard) -> None:
        for video in one.videos:
            self.suspects.discard(video.video_id)
            self.blamed[video.video_id] = 0

    def read(self, _: int) -> None:
        one = self.shards[self.at]
        if not self.streaming:
            self.streaming = True
            anew = not self.q.has(one, self.request)
            self.q.put_first(one, self.request)
            for each in self.shards:
                if anew or not self.q.has(each, self.request):
                    self.acquit(each)
            return
        event = self.q.take()
        if event is None:
            assert self.q.at_end
            self.q.drop(one.key)
            may = self.second is None and one.videos and isinstance(self.request, FrameRequest)
            if may and self.rng.random() < self.wants_more:
                self.look_again(one)
                return
            self.streaming, self.second = False, None
            self.at += 1
            return
        self.got(self.looks[-1][1] if self.second is not None else self.seen[self.at], event)

    def look_again(self, one: Shard) -> None:
        """Some clips of some of its videos, ahead of all that was prefetched."""
        chosen = [v for v in one.videos if self.rng.random() < 0.7]
        some = {v.video_id: tuple(n for n in range(v.num_clips) if self.rng.random() < 0.5) for v in chosen}
        videos = [replace(v, only_us=tuple(n * 1_000_000 for n in some[v.video_id])) for v in chosen]
        self.second = Shard(one.key, tuple(videos))
        self.looks.append((self.second, Seen()))
        self.acquit(one)
        self.q.interject(self.second, SECOND)

    def got(self, seen: Seen, event: Event) -> None:
        if isinstance(event, VideoEnd) and event.failure is not None:
            assert self.blamed[event.video_id] == self.max_attempts, "it cost fewer decoders, or more"
        ids = [v.video_id for v in (self.second or self.shards[self.at]).videos]
        assert event.video_id == ids[len(seen.ends)], "plan order"
        if isinstance(event, VideoEnd):
            seen.ends.append(event.video_id)
            if event.failure is not None:
                seen.failures[event.video_id] = event.failure
        elif isinstance(event, Clip):
            seen.clips.setdefault(event.video_id, []).append(event.span.start_us // 1_000_000)
        else:
            seen.clips.setdefault(event.video_id, []).append(0)

    # what must be so

    def check_call(self, number: int, call: DecodeCall) -> None:
        in_flight = [*self.actors[number].todo]
        assert len(in_flight) < CALLS_AHEAD
        ids = {p.video.video_id for p in call.parts}
        for other in in_flight:
            if all(v.ended for v in self.q._open[other.number].videos):
                continue  # dropped: its video may have been added anew since, and be somebody else
            others = {p.video.video_id for p in other.parts}
            if others != ids:
                assert not self.suspects & (ids | others), "a suspect shares its decoder"
        assert len(ids) == 1 or not self.suspects & ids

    def check(self) -> None:
        dropped = sum(o.reserved for o in self.q._open.values() if o.videos[0].ended)  # still on the way
        assert 0 <= self.q.waiting_bytes <= self.max_bytes + A_CALL * EACH + dropped

    def check_end(self) -> None:
        for one, seen in zip(self.shards, self.seen, strict=True):
            assert seen.ends == [v.video_id for v in one.videos]
            for name in seen.ends:
                self.check_video(name, seen.clips.get(name, []), seen.failures.get(name))
        for again, seen in self.looks:
            assert seen.ends == [v.video_id for v in again.videos]
            for video in again.videos:
                name, wanted = video.video_id, wanted_of(video)
                self.check_second(name, wanted, seen.clips.get(name, []), seen.failures.get(name))

    def check_second(self, name: str, wanted: list[int], clips: list[int], failure: Failure | None) -> None:
        nature = self.natures[name]
        if nature.kills_at is None or not wanted or nature.kills_at > wanted[-1]:
            assert clips == [n for n in wanted if n < nature.ends_at] and failure is None
            return
        assert failure is not None and failure.attempts == self.max_attempts
        assert clips == wanted[: len(clips)]
        assert failure.missing_rows == (len(wanted) - len(clips) if failure.permanent else len(wanted))

    def check_video(self, name: str, clips: list[int], failure: Failure | None) -> None:
        nature = self.natures[name]
        if nature.kills_at is None:
            expected = [0] if isinstance(self.request, ProbeRequest) else list(range(nature.ends_at))
            assert clips == expected and failure is None
            return
        assert failure is not None
        assert failure.attempts == self.max_attempts
        assert (failure.error, failure.permanent) == (nature.death.error, nature.death.permanent)
        if isinstance(self.request, FrameRequest):
            assert clips == list(range(len(clips))) and len(clips) <= nature.kills_at
            lost = nature.num_clips - len(clips) if failure.permanent else nature.num_clips
            assert failure.missing_rows == lost


@settings(max_examples=250)
@given(seed=st.integers(0, 2**32))
def test_every_clip_comes_once_in_order_whatever_happens(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(20_000):
        if world.done:
            break
        world.step()
    assert world.done, "the reader does not come to the end"
    world.check_end()
    while any(actor.todo or actor.answers for actor in world.actors.values()):  # of shards that were dropped
        for number, actor in list(world.actors.items()):
            if actor.todo:
                world.work(number)
            elif actor.answers:
                world.arrive(number)
    for one in world.shards:
        world.q.drop(one.key)
    assert world.q.waiting_bytes == 0
    assert world.q.calls() == []
