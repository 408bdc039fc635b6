"""The decode pool: what its readers see of decoders that crash, hang, swell, vanish or never come."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from cluster import decode_pool
from cluster.decode_calls import Chunk, DecodeCall, Health, Hello, Part
from cluster.decode_pool import DecodePool, PoolSettings
from pipeline.frames import Clip, Event, FrameRequest, VideoEnd
from schemas.clip import ClipSpan, ClipSpec
from schemas.errors import RetryableError, SettingsError
from schemas.shard import Failure, Shard, ShardKey
from schemas.targets import DecodeSpec, ViewSpec
from schemas.video import Video

REQUEST = FrameRequest(
    ClipSpec(num_frames=1, seconds=1.0), ViewSpec(width=512, height=512), DecodeSpec(backend="pyav")
)
FRAMES = np.broadcast_to(np.uint8(0), (1, 1, 512, 512, 3))
CLIPS = 12
NODE_GONE = "the node is gone"
LIMIT = 1000
STALL = 0.4
PATIENCE = 20.0


class ActorDied(Exception):
    """As of an actor whose process is gone."""


class FakeDecoder:
    """Decodes in a thread. A URI ``name?what=n`` does ``what`` to the decoder the first ``n`` times it is begun."""

    def __init__(self, world: World, bundle: int) -> None:
        self.world, self.bundle = world, bundle
        self.dead = threading.Event()
        self.lock = threading.Lock()
        self.open: dict[int, Future[Chunk]] = {}
        self.todo: queue.SimpleQueue[DecodeCall | None] = queue.SimpleQueue()
        self.words, self.doing = "", ""
        self.beats, self.size, self.resident, self.mute = 0, 10, 10, False
        self.at: dict[str, int] = {}
        self.killed_with: list[Hello | None] = []
        self.answer_late: DecodeCall | None = None
        threading.Thread(target=self.work, daemon=True).start()

    # the protocol

    def hello(self) -> Future[Hello]:
        future: Future[Hello] = Future()
        if self.world.refusals > 0:
            self.world.refusals -= 1
            future.set_exception(ActorDied("no such machine"))
        else:
            future.set_result(Hello(self.bundle, "here", "words"))
        return future

    def take(self, call: DecodeCall) -> Future[Chunk]:
        future: Future[Chunk] = Future()
        with self.lock:
            if self.dead.is_set():
                future.set_exception(ActorDied("it is dead"))
                return future
            self.open[call.number] = future
        self.todo.put(call)
        return future

    def health(self) -> Future[Health]:
        future: Future[Health] = Future()
        if self.dead.is_set():
            future.set_exception(ActorDied("it is dead"))
        elif not self.mute:
            future.set_result(Health(self.beats, self.doing, self.resident))
        return future

    def resident_bytes(self, hello: Hello) -> int:
        if self.answer_late is not None:  # it answers while it is looked at
            self.answer(self.answer_late)
            self.answer_late = None
        return self.size

    def kill(self, hello: Hello | None) -> None:
        self.killed_with.append(hello)
        self.die("it was killed")

    def last_words(self, hello: Hello) -> str | None:
        words, self.words = self.words, ""
        return None if words == NODE_GONE else words

    # what it does

    def die(self, why: str, words: str = "") -> None:
        with self.lock:
            self.words = self.words or words
            self.dead.set()
            lost, self.open = self.open, {}
        self.todo.put(None)
        for future in lost.values():
            future.set_exception(ActorDied(f"The actor died.\n exit detail: {why}"))

    def work(self) -> None:
        while not self.dead.is_set() and (call := self.todo.get()) is not None:
            for part in call.parts:
                self.begin(call, part)
            if not self.dead.is_set() and self.answer_late is None:
                self.answer(call)

    def begin(self, call: DecodeCall, part: Part) -> None:
        name, _, wish = part.video.uri.partition("?")
        if part.ticket not in self.at:
            self.at[part.ticket] = part.before.num_clips
            self.world.tries[name] += 1
        what, _, times = wish.partition("=")
        if what and self.world.tries[name] <= int(times):
            getattr(self, what)(call)

    def answer(self, call: DecodeCall) -> None:
        events = tuple(tuple(self.events(part, call.max_clips)) for part in call.parts)
        chunk = Chunk(events, 0.25, 0.5, time.time(), self.size, ("a note",))
        with self.lock:
            future = self.open.pop(call.number, None)
        if future is not None:
            future.set_result(chunk)

    def events(self, part: Part, max_clips: int | None) -> Iterator[Event]:
        video, begin = part.video, self.at[part.ticket]
        end = video.num_clips if max_clips is None else min(video.num_clips, begin + max_clips)
        for n in range(begin, end):
            span = ClipSpan(n * 1_000_000, (n + 1) * 1_000_000, (n * 1_000_000 + 500_000,))
            yield Clip(video.video_id, span, FRAMES, "", 1.0)
        self.at[part.ticket] = end
        if max_clips is None:
            yield VideoEnd(video.video_id, None)

    # what may be the matter

    def crash(self, call: DecodeCall) -> None:
        self.die("signal", "Fatal Python error: Segmentation fault < File x")

    def gone(self, call: DecodeCall) -> None:
        self.die("SIGKILL Some common causes are: (1) memory")

    def hang(self, call: DecodeCall) -> None:
        self.dead.wait(PATIENCE)

    def silent(self, call: DecodeCall) -> None:
        self.mute = True
        self.dead.wait(PATIENCE)

    def storage(self, call: DecodeCall) -> None:
        self.doing = "storage"
        self.dead.wait(PATIENCE)

    def slow(self, call: DecodeCall) -> None:
        end = time.monotonic() + 3 * STALL
        while time.monotonic() < end and not self.dead.wait(0.01):
            self.beats += 1

    def swell(self, call: DecodeCall) -> None:
        self.size = LIMIT + 1
        self.dead.wait(PATIENCE)

    def leak(self, call: DecodeCall) -> None:
        """Each answer leaves more behind, whoever asks."""
        self.size += LIMIT * 6 // 10
        if self.size > LIMIT:
            self.dead.wait(PATIENCE)

    def late(self, call: DecodeCall) -> None:
        self.size = LIMIT + 1
        self.answer_late = call

    def broken(self, call: DecodeCall) -> None:
        with self.lock:
            self.open.pop(call.number).set_exception(SettingsError("decord is not installed"))
        self.dead.wait(PATIENCE)


class World:
    """Makes the decoders, and keeps count."""

    def __init__(self) -> None:
        self.made: list[FakeDecoder] = []
        self.tries: Counter[str] = Counter()
        self.refusals = 0
        self.pools: list[DecodePool] = []

    def make(self, bundle: int) -> FakeDecoder:
        self.made.append(FakeDecoder(self, bundle))
        return self.made[-1]

    def pool(self, **settings: object) -> DecodePool:
        chosen = {"stall_seconds": STALL, "max_decoder_bytes": LIMIT, "max_bytes": 8 << 20} | settings
        self.pools.append(DecodePool(self.make, PoolSettings(**chosen)))  # type: ignore[arg-type]
        return self.pools[-1]


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_TICK_SECONDS", 0.02)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for pool in made.pools:
        pool.close()
    assert all(decoder.dead.is_set() for decoder in made.made), "a decoder was left alive"


def shard(*uris: str, number: int = 0, clips: int = CLIPS) -> Shard:
    videos = (Video(uri.partition("?")[0], uri, 0, clips * 1_000_000, clips) for uri in uris)
    return Shard(ShardKey(1, number), tuple(videos))


def read(pool: DecodePool, one: Shard) -> dict[str, Failure | None]:
    """Failures by video, of a shard whose events were checked for order and completeness."""
    ends: dict[str, Failure | None] = {}
    clips: Counter[str] = Counter()
    for event in pool.stream(one, REQUEST):
        assert event.video_id == one.videos[len(ends)].video_id
        if isinstance(event, VideoEnd):
            ends[event.video_id] = event.failure
        elif isinstance(event, Clip):
            assert event.span.start_us == clips[event.video_id] * 1_000_000
            clips[event.video_id] += 1
    assert list(ends) == [v.video_id for v in one.videos]
    for video in one.videos:
        failure = ends[video.video_id]
        assert failure or clips[video.video_id] == video.num_clips
    assert pool._queue.waiting_bytes >= 0
    return ends


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


# -------------------------------------------------------------------- all is well


@pytest.mark.parametrize("num_decoders", [1, 3])
@pytest.mark.parametrize("max_bytes", [1, 4 << 20, 1 << 30])
def test_shards_come_whole_and_in_order(world: World, num_decoders: int, max_bytes: int) -> None:
    pool = world.pool(num_decoders=num_decoders, max_bytes=max_bytes)
    shards = [shard(*[f"s{n}v{v}" for v in range(4)], number=n) for n in range(3)]
    for one in shards:
        pool.prefetch(one, REQUEST)
    for one in shards:
        assert set(read(pool, one).values()) == {None}
    assert max(world.tries.values()) == 1, "what was prefetched was decoded again"
    assert len(world.made) == num_decoders
    assert wait_until(lambda: pool._queue.waiting_bytes == 0)


def test_seconds_and_notes_are_told_once(world: World) -> None:
    pool = world.pool()
    read(pool, shard("a", clips=1))
    seconds = pool.take_seconds()
    assert (seconds["decode"], seconds["read"]) == (0.25, 0.5) and seconds["transfer"] >= 0
    assert pool.take_notes() == ("a note",)
    assert (pool.take_seconds(), pool.take_notes()) == ({}, ())


def test_an_empty_shard_ends_at_once(world: World) -> None:
    assert read(world.pool(), shard()) == {}


def test_a_slow_video_lives(world: World) -> None:
    assert read(world.pool(), shard("a?slow=1", "b", clips=1)) == {"a": None, "b": None}
    assert len(world.made) == 1


def test_a_reader_that_goes_away_leaves_nothing(world: World) -> None:
    pool = world.pool(num_decoders=2)
    stream = pool.stream(shard("a", "b", "c"), REQUEST)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert wait_until(lambda: pool._queue.waiting_bytes == 0)
    assert read(pool, shard("d", number=1)) == {"d": None}


def test_room_that_a_forgotten_shard_leaves_is_used(world: World) -> None:
    pool = world.pool(max_bytes=CLIPS * FRAMES.nbytes)
    one, two = shard("a", number=1), shard("b", number=2)
    pool.prefetch(one, REQUEST)
    pool.prefetch(two, REQUEST)
    assert wait_until(lambda: pool._queue.waiting_bytes == CLIPS * FRAMES.nbytes and not world.made[0].open)
    assert world.tries["b"] == 0
    pool.forget(one.key)
    assert wait_until(lambda: world.tries["b"] == 1)


# -------------------------------------------------------------------- decoders that end


def test_a_video_that_crashes_every_decoder_is_given_up_and_only_it(world: World) -> None:
    pool = world.pool(num_decoders=2)
    ends = read(pool, shard("a", "b?crash=9", "c", "d"))
    failure = ends.pop("b")
    assert set(ends.values()) == {None} and failure is not None
    assert (failure.error, failure.permanent, failure.attempts) == ("DecoderCrashed", True, 3)
    assert failure.message == "Fatal Python error: Segmentation fault < File x"
    assert (failure.missing_rows, world.tries["b"]) == (CLIPS, 3)
    assert wait_until(lambda: len(world.made) == 5)
    assert sum(d.dead.is_set() for d in world.made) == 3, "a decoder was not replaced"


def test_a_crash_that_does_not_come_again_costs_nothing(world: World) -> None:
    assert set(read(world.pool(), shard("a", "b?crash=2", "c")).values()) == {None}
    assert world.tries["b"] == 3


def test_a_decoder_that_was_killed_from_outside_is_a_passing_failure(world: World) -> None:
    failure = read(world.pool(max_attempts=2), shard("a?gone=9"))["a"]
    assert failure is not None
    assert (failure.error, failure.permanent, failure.attempts) == ("DecoderKilled", False, 2)
    assert "SIGKILL" in failure.message


@pytest.mark.parametrize("what", ["hang", "silent"])
def test_a_video_that_hangs_is_killed(world: World, what: str) -> None:
    began = time.monotonic()
    ends = read(world.pool(max_attempts=2), shard("a", f"b?{what}=9", "c"))
    failure = ends.pop("b")
    assert set(ends.values()) == {None} and failure is not None
    assert (failure.error, failure.permanent, failure.attempts) == ("DecoderHung", True, 2)
    assert ("does not answer" in failure.message) == (what == "silent")
    assert 2 * STALL <= time.monotonic() - began < PATIENCE
    assert all(d.killed_with[0] is not None for d in world.made[:2]), (
        "a living process is killed by its number"
    )


def test_storage_is_waited_for_longer_and_is_nobodys_damage(world: World) -> None:
    began = time.monotonic()
    failure = read(world.pool(max_attempts=1), shard("a?storage=9"))["a"]
    assert failure is not None and not failure.permanent
    assert "waiting for storage" in failure.message
    assert 5 * STALL <= time.monotonic() - began < PATIENCE


def test_a_video_that_swells_is_killed(world: World) -> None:
    ends = read(world.pool(max_attempts=2), shard("a", "b?swell=9", "c"))
    failure = ends.pop("b")
    assert set(ends.values()) == {None} and failure is not None
    assert (failure.error, failure.permanent, failure.attempts) == ("DecoderSwelled", True, 2)


def test_a_decoder_that_leaks_is_replaced_and_nobody_blamed(world: World) -> None:
    ends = read(world.pool(max_attempts=1), shard("a?leak=9", "b?leak=1", "c", clips=1))
    assert set(ends.values()) == {None}
    assert len(world.made) > 1


def test_who_comes_after_a_decoder_was_condemned_is_not_blamed(world: World) -> None:
    """The answer was on its way when the decoder was killed for what it held: nobody's call is open then."""
    ends = read(world.pool(max_attempts=1, max_bytes=1), shard("a?late=1", "b", clips=1))
    assert ends == {"a": None, "b": None}
    assert len(world.made) == 2


def test_who_was_read_on_a_node_that_went_is_not_blamed(world: World) -> None:
    pool = world.pool(max_attempts=1)
    pool.prefetch(shard("a?hang=1"), REQUEST)
    assert wait_until(lambda: bool(world.made[0].open))
    world.made[0].die("its node", NODE_GONE)
    assert read(pool, shard("a?hang=1")) == {"a": None}


def test_a_decoder_that_dies_of_nothing_is_replaced_and_nobody_blamed(world: World) -> None:
    pool = world.pool(max_attempts=1)
    assert read(pool, shard("a")) == {"a": None}
    world.made[0].die("the node is gone")
    assert wait_until(lambda: len(world.made) == 2)
    assert read(pool, shard("b", number=1)) == {"b": None}


# -------------------------------------------------------------------- what the reader has to know


def test_decoders_that_never_start_are_told_to_the_reader(world: World) -> None:
    world.refusals = 99
    pool = world.pool(num_decoders=2)
    with pytest.raises(RetryableError, match="decode actors do not start: no such machine"):
        read(pool, shard("a"))
    assert len(world.made) < 10


def test_a_decoder_that_starts_at_the_third_try_is_good_enough(world: World) -> None:
    world.refusals = 2
    assert read(world.pool(), shard("a")) == {"a": None}


def test_a_wrong_setting_is_not_the_videos_fault(world: World) -> None:
    with pytest.raises(SettingsError, match="decord is not installed"):
        read(world.pool(), shard("a?broken=9"))


def test_what_is_waited_for_is_said(world: World) -> None:
    pool = world.pool(stall_seconds=PATIENCE)
    assert pool.waits_for == ""
    stream = pool.stream(shard("a", "b?storage=1"), REQUEST)
    for _ in range(CLIPS + 1):
        next(stream)
    threading.Thread(target=lambda: list(_until_closed(stream)), daemon=True).start()
    assert wait_until(lambda: pool.waits_for == "frames of b?storage=1 (storage)")


def _until_closed(stream: Iterator[Event]) -> Iterator[Event]:
    with pytest.raises(ValueError, match="closed"):
        yield from stream


def test_closing_wakes_a_reader_and_stops_the_thread(world: World) -> None:
    pool = world.pool(num_decoders=2, stall_seconds=PATIENCE)
    threading.Timer(0.1, pool.close).start()
    began = time.monotonic()
    with pytest.raises(ValueError, match="closed while"):
        read(pool, shard("a?hang=9"))
    pool.close()
    assert time.monotonic() - began < 5
    assert wait_until(lambda: not pool._thread.is_alive())
    assert wait_until(lambda: all(decoder.dead.is_set() for decoder in world.made))
    with pytest.raises(ValueError, match="closed"):
        pool.prefetch(shard("b"), REQUEST)
    with pytest.raises(ValueError, match="closed"):
        read(pool, shard("b"))
    assert len(world.made) == 2, "a decoder was started at the end"


def test_a_pool_that_does_nothing_closes_at_once(world: World) -> None:
    began = time.monotonic()
    world.pool(num_decoders=3).close()
    assert time.monotonic() - began < 2
