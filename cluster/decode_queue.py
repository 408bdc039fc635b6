"""Which part of which video goes to which decode actor, within a bound in bytes. Pure: no Ray, no threads, no time.

Videos are asked for in plan order, each from one actor, in parts of some megabytes; an actor has up to two calls
before it, so that it need not wait for the next. Events are given out in plan order whatever order they come in.
Frames asked for and frames that wait count against the bound; the video that the reader waits for may always go on.

When an actor dies, the video of its first open call is to blame: it is tried again alone on an actor, from the clip
after the last one that came, and fails when it has cost ``max_attempts`` actors. The others start anew, unblamed.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cluster.decode_calls import Death, DecodeCall, Part
from pipeline.frames import Clip, Delivered, Event, FrameRequest, ProbeRequest, Request, VideoEnd
from schemas.shard import Failure, Shard, ShardKey
from schemas.video import Video

CHUNK_BYTES = 4 << 20
"""Frames in one answer of an actor: large against the cost of a call, small against the bound."""
CALLS_AHEAD = 2
_PROBES_A_CALL = 16


@dataclass(eq=False)
class _Video:
    """One video of a job, and how far it is."""

    video: Video
    serial: int
    before: Delivered = field(default_factory=Delivered)
    tries: int = 0
    asked_to_end: bool = False
    decoder: int | None = None
    alone: bool = False
    events: deque[Event] = field(default_factory=deque)
    ended: bool = False

    @property
    def ticket(self) -> str:
        return f"{self.video.video_id}/{self.serial}/{self.tries}"

    def restart(self) -> None:
        self.tries += 1
        self.asked_to_end = False
        self.decoder = None


@dataclass(eq=False)
class _Job:
    shard: Shard
    request: Request
    videos: list[_Video]
    head: int = 0
    fresh: int = 0
    """No video before this one waits to be given to a decoder."""

    def is_for(self, shard: Shard, request: Request) -> bool:
        return self.shard.key == shard.key and self.request == request


@dataclass(eq=False)
class _Open:
    """A call under way, or answered before one that was made earlier."""

    call: DecodeCall
    decoder: int
    videos: tuple[_Video, ...]
    reserved: int
    answer: Sequence[Sequence[Event]] | None = None

    @property
    def still_meant(self) -> tuple[_Video, ...]:
        """Videos that were not taken from the decoder since they were asked for."""
        return tuple(
            v for v, part in zip(self.videos, self.call.parts, strict=True) if part.ticket == v.ticket
        )


class DecodeQueue:
    """State of a worker's decoding. Decoders are numbers that are never used twice."""

    def __init__(self, max_bytes: int, max_attempts: int, decoder_name: str = "") -> None:
        if max_bytes < 1 or max_attempts < 1:
            raise ValueError(f"max_bytes and max_attempts must be positive, got {max_bytes}, {max_attempts}")
        self._max_bytes, self._max_attempts, self._name = max_bytes, max_attempts, decoder_name
        self._max_behind = max_bytes
        self._jobs: deque[_Job] = deque()
        self._decoders: dict[int, deque[int]] = {}
        self._open: dict[int, _Open] = {}
        self._in_part: dict[int, tuple[_Job, _Video]] = {}
        self._numbers = itertools.count()
        self._serials = itertools.count()
        self.waiting_bytes = 0
        """Frames that wait to be read, and room kept for those that were asked for."""

    # ---------------------------------------------------------------- the reader's side

    def add(self, shard: Shard, request: Request) -> None:
        """Decode ``shard`` after what was added before; nothing where it is there already."""
        if not self.has(shard, request):
            videos = [_Video(v, next(self._serials)) for v in shard.videos]
            self._jobs.append(_Job(shard, request, videos))

    def has(self, shard: Shard, request: Request) -> bool:
        return any(job.is_for(shard, request) for job in self._jobs)

    def drop(self, key: ShardKey) -> None:
        """Forget a shard; what comes of it is thrown away."""
        for job in [j for j in self._jobs if j.shard.key == key]:
            self._jobs.remove(job)
            for video in job.videos:
                self.waiting_bytes -= sum(map(num_bytes, video.events))
                video.events.clear()
                video.ended = True

    def put_first(self, shard: Shard, request: Request) -> None:
        """Add ``shard`` where it is not there, and drop what was added before it.

        Where it was not there, what is has yet to come, and begins anew after it.
        """
        if self.has(shard, request):
            while not self._jobs[0].is_for(shard, request):
                self.drop(self._jobs[0].shard.key)
            return
        others = [(job.shard, job.request) for job in self._jobs if job.shard.key != shard.key]
        while self._jobs:
            self.drop(self._jobs[0].shard.key)
        for each in ((shard, request), *others):
            self.add(*each)

    def interject(self, shard: Shard, request: Request) -> None:
        """Add ``shard`` before all that is there, which is kept and goes on behind it.

        From now on what is behind the first job may take half of the bound, so that there is room for the next second
        look. Videos behind it that a decoder was asked for in part are taken from it, and go on from where they are.
        """
        for decoder, (job, video) in list(self._in_part.items()):
            if not video.asked_to_end and not video.ended:
                video.restart()
                job.fresh = 0
            del self._in_part[decoder]
        self._jobs.appendleft(_Job(shard, request, [_Video(v, next(self._serials)) for v in shard.videos]))
        self._max_behind = self._max_bytes // 2

    def take(self) -> Event | None:
        """The next event of the first job; None where it has not come yet, or the job is at its end."""
        if not self._jobs:
            return None
        job = self._jobs[0]
        while job.head < len(job.videos):
            video = job.videos[job.head]
            if video.events:
                event = video.events.popleft()
                self.waiting_bytes -= num_bytes(event)
                job.head += isinstance(event, VideoEnd)
                return event
            if not video.ended:
                return None
            job.head += 1
        return None

    @property
    def at_end(self) -> bool:
        """Whether all of the first job was taken (or there is none)."""
        return not self._jobs or self._jobs[0].head >= len(self._jobs[0].videos)

    @property
    def waits_for(self) -> str:
        """URI of the video that the reader waits for; empty where it waits for none."""
        return "" if self.at_end else self._jobs[0].videos[self._jobs[0].head].video.uri

    # ---------------------------------------------------------------- the decoders' side

    def joined(self, decoder: int) -> None:
        self._decoders[decoder] = deque()

    def working_on(self, decoder: int) -> str:
        """URI of what the decoder does now; empty where it has nothing to do."""
        calls = self._decoders.get(decoder)
        if not calls:
            return ""
        first, *more = (v.video.uri for v in self._open[calls[0]].videos)
        return f"{first} and {len(more)} more" if more else first

    def calls(self) -> list[tuple[int, DecodeCall]]:
        """What is to be asked of whom, now."""
        out = []
        while (made := self._next_call()) is not None:
            out.append(made)
        return out

    def arrived(self, number: int, events: Sequence[Sequence[Event]]) -> None:
        """A call was answered. Calls of decoders that were lost are nobody's any more.

        An answer that overtakes another of its decoder waits for that one.
        """
        if number not in self._open:
            return
        self._open[number].answer = events
        calls = self._decoders[self._open[number].decoder]
        while calls and (answer := self._open[calls[0]].answer) is not None:
            opened = self._open.pop(calls.popleft())
            self.waiting_bytes -= opened.reserved
            for video, part, coming in zip(opened.videos, opened.call.parts, answer, strict=True):
                if video.ticket == part.ticket and not video.ended:
                    self._receive(video, coming)

    def lost(self, decoder: int, death: Death) -> None:
        """A decoder is no more."""
        opened = [self._open.pop(number) for number in self._decoders.pop(decoder, ())]
        for each in opened:
            self.waiting_bytes -= each.reserved
        self._in_part.pop(decoder, None)
        suspect = opened[0].still_meant if opened and death.blame else ()
        for job, video in self._videos_of(decoder):
            video.restart()
            video.alone = video.alone or video in suspect
            job.fresh = 0
        if len(suspect) == 1 and not suspect[0].ended:
            self._blame(suspect[0], opened[0].call.request, death)

    # ---------------------------------------------------------------- how

    def _videos_of(self, decoder: int) -> list[tuple[_Job, _Video]]:
        return [(job, v) for job in self._jobs for v in job.videos if v.decoder == decoder and not v.ended]

    def _receive(self, video: _Video, events: Sequence[Event]) -> None:
        for event in events:
            video.events.append(event)
            self.waiting_bytes += num_bytes(event)
            if isinstance(event, Clip):
                b = video.before
                video.before = replace(
                    b,
                    num_clips=b.num_clips + 1,
                    num_damaged=b.num_damaged + bool(event.damage),
                    damage=b.damage or event.damage,
                    last_start_us=event.span.start_us,
                )
            elif isinstance(event, VideoEnd):
                video.ended = True

    def _blame(self, video: _Video, request: Request, death: Death) -> None:
        b = video.before = replace(video.before, attempts=video.before.attempts + 1)
        if b.attempts < self._max_attempts:
            return
        planned = max(1, video.video.num_wanted)
        failure = Failure(
            video_id=video.video.video_id,
            uri=video.video.uri,
            stage="probe" if isinstance(request, ProbeRequest) else "decode",
            error=death.error,
            message=death.message,
            permanent=death.permanent,
            attempts=b.attempts,
            missing_rows=planned - b.num_clips if death.permanent else planned,
            damaged_rows=b.num_damaged if death.permanent else 0,
            decoder=self._name,
        )
        self._receive(video, (VideoEnd(video.video.video_id, failure),))

    def _next_call(self) -> tuple[int, DecodeCall] | None:
        for decoder in sorted(self._decoders, key=lambda d: len(self._decoders[d])):
            if len(self._decoders[decoder]) < CALLS_AHEAD and (made := self._call_for(decoder)) is not None:
                return decoder, made
        return None

    def _call_for(self, decoder: int) -> DecodeCall | None:
        under_way = self._under_way(decoder)
        if under_way is not None:
            job, video = under_way
            return self._ask(decoder, job, (video,))
        if self._has_alone(decoder):
            return None
        found = self._unassigned()
        if found is None:
            return None
        job, videos = found
        if videos[0].alone and self._decoders[decoder]:
            return None
        return self._ask(decoder, job, videos)

    def _under_way(self, decoder: int) -> tuple[_Job, _Video] | None:
        """The video that the decoder was asked for in part."""
        job, video = self._in_part.get(decoder, (None, None))
        if job is None or video is None or video.decoder != decoder or video.ended or video.asked_to_end:
            return None
        return job, video

    def _has_alone(self, decoder: int) -> bool:
        return any(v.alone for number in self._decoders[decoder] for v in self._open[number].videos)

    def _unassigned(self) -> tuple[_Job, tuple[_Video, ...]] | None:
        """The next videos for one call, in plan order: one, or several to be probed."""
        for job in self._jobs:
            while job.fresh < len(job.videos) and not _waits(job.videos[job.fresh]):
                job.fresh += 1
            fresh = (v for v in map(job.videos.__getitem__, range(job.fresh, len(job.videos))) if _waits(v))
            first = next(fresh, None)
            if first is None:
                continue
            if first.alone or not isinstance(job.request, ProbeRequest):
                return job, (first,)
            more = itertools.takewhile(lambda v: not v.alone, itertools.islice(fresh, _PROBES_A_CALL - 1))
            return job, (first, *more)
        return None

    def _ask(self, decoder: int, job: _Job, videos: tuple[_Video, ...]) -> DecodeCall | None:
        max_clips, reserved = self._size(job.request, videos)
        room = self._max_bytes if job is self._jobs[0] else self._max_behind
        if self.waiting_bytes + reserved > room and not self._is_waited_for(videos[0]):
            return None
        for video in videos:
            video.decoder = decoder
            video.asked_to_end = max_clips is None
        if max_clips is not None:
            self._in_part[decoder] = (job, videos[0])
        number = next(self._numbers)
        parts = tuple(Part(v.video, v.ticket, v.before) for v in videos)
        call = DecodeCall(number, parts, job.request, max_clips)
        self._open[number] = _Open(call, decoder, videos, reserved)
        self._decoders[decoder].append(number)
        self.waiting_bytes += reserved
        return call

    def _size(self, request: Request, videos: Sequence[_Video]) -> tuple[int | None, int]:
        """Clips to ask for, None for all that are left; and their bytes."""
        if not isinstance(request, FrameRequest):
            return None, 0
        each = request.clip_bytes
        video = videos[0]
        left = video.video.num_wanted - video.before.num_clips - self._asked_not_there(video)
        most = 1 if video.alone else max(1, CHUNK_BYTES // each)  # one that kills is asked clip by clip
        return (None, max(0, left) * each) if left <= most else (most, most * each)

    def _asked_not_there(self, video: _Video) -> int:
        open_calls = self._decoders[video.decoder] if video.decoder is not None else ()
        return sum(self._open[n].call.max_clips or 0 for n in open_calls if video in self._open[n].videos)

    def _is_waited_for(self, video: _Video) -> bool:
        """Whether the reader waits for this video, and nothing of it is on the way."""
        job = self._jobs[0]
        if job.head >= len(job.videos) or job.videos[job.head] is not video or video.events:
            return False
        return not any(video in opened.videos for opened in self._open.values())


def _waits(video: _Video) -> bool:
    return video.decoder is None and not video.ended


def num_bytes(event: Event) -> int:
    """Bytes of the frames of an event."""
    return event.num_bytes if isinstance(event, Clip) else 0
