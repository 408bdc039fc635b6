"""One video's events, over passing faults: attempts, aliases, and the Failure that sums up what was wrong.

A passing fault (of the storage) is tried again after a pause that doubles; clips that were handed on are not
asked for again. A file that is not there, or holds other bytes than were indexed, is looked for under the video's
other URIs, and not waited for.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.frames import Clip, Delivered, FrameRequest, VideoEnd
from pipeline.video.activity import idle_starts
from pipeline.video.decoder import DecodedClip, Decoder
from pipeline.video.pulse import PULSE
from pipeline.video.same_bytes import CHANGED, CHANGED_WHILE_READ, require_bytes, require_unchanged
from schemas.clip import ClipSpan
from schemas.errors import VideoError
from schemas.shard import Failure
from schemas.video import Video

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
MAX_MESSAGE_CHARS = 500
_NO_FRAMES = np.empty((0, 0, 0, 0, 3), np.uint8)
_NOT_THERE = frozenset({"FileNotFoundError", "NotADirectoryError", "IsADirectoryError", CHANGED})
_NOT_WAITED_FOR = _NOT_THERE | {CHANGED_WHILE_READ}


def unreadable(video: Video) -> Failure:
    """What befell a video of which it is known that it cannot be read."""
    known = Failure.from_json(json.loads(video.unreadable or ""))
    return replace(known, video_id=video.video_id, missing_rows=video.num_clips)


class VideoAttempts:
    """Decodes one video. `events` yields its clips and one VideoEnd; ``stop`` ends it early, without a
    VideoEnd. Clips that were handed on ``before`` are not yielded again, but count in what is said of the video.

    ``decode_ms`` of a clip is CPU time of the decoding thread: waiting for storage or for the reader is left
    out.
    """

    def __init__(
        self,
        decoder: Decoder,
        video: Video,
        request: FrameRequest,
        max_attempts: int,
        stop: threading.Event,
        before: Delivered = Delivered(),
    ) -> None:
        self._decoder = decoder
        self._video = video
        self._request = request
        self._max_attempts = max_attempts
        self._stop = stop
        self._uri = video.uri
        self._last_start_us = before.last_start_us
        self._num_attempts = before.attempts
        self._num_yielded = before.num_clips
        self._num_damaged = before.num_damaged
        self._damage = before.damage
        self._idle: frozenset[int] | None = None

    def events(self) -> Iterator[Clip | VideoEnd]:
        """Clips sorted by start, then the end of the video.

        An exception of the decoder other than VideoError is a passing failure of this video.
        """
        video = self._video
        if video.unreadable is not None:
            yield VideoEnd(video.video_id, unreadable(video))
            return
        spans = self._request.spans_of(video)
        left = [span for span in spans if span.start_us > self._last_start_us]
        error = yield from self._all_attempts(left)
        if not self._stop.is_set():
            yield VideoEnd(video.video_id, self._failure(len(spans), error))

    def _all_attempts(self, spans: Sequence[ClipSpan]) -> Generator[Clip, None, VideoError | None]:
        first = 0  # of those that have not come; a damaged length may make millions of them
        while True:
            self._num_attempts += 1
            try:
                for clip in self._one_attempt(spans[first:]):
                    while first < len(spans) and spans[first].start_us <= clip.span.start_us:
                        first += 1
                    yield clip
                return None
            except VideoError as error:
                given_up = self._num_attempts >= self._max_attempts or error.cause in _NOT_WAITED_FOR
                if error.permanent or given_up:
                    return error
            pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self._num_attempts - 1))
            with PULSE.waiting_for("a pause before the next attempt"):
                if self._stop.wait(pause * random.uniform(0.5, 1.5)):
                    return None

    def _one_attempt(self, spans: Sequence[ClipSpan]) -> Iterator[Clip]:
        uris = self._video.uris or (self._video.uri,)
        for number, uri in enumerate(uris, 1):
            self._uri = uri
            try:
                yield from self._checked(uri, spans)
                return
            except VideoError as error:
                if error.cause not in _NOT_THERE or number == len(uris):
                    raise

    def _checked(self, uri: str, spans: Sequence[ClipSpan]) -> Iterator[Clip]:
        """The clips of ``uri``, if it holds the bytes that are meant, from the first clip to the last."""
        expected = self._video.file_id
        with PULSE.waiting_for("storage"):
            token = require_bytes(uri, expected) if expected else ""
        try:
            yield from self._clips(uri, spans)
        except VideoError:
            raise
        except Exception as error:  # one video that a decoder stumbles over must not doom its shard
            cause = type(error).__name__
            raise VideoError("decode", f"{cause}: {error}", permanent=False, cause=cause) from error
        if expected and not self._stop.is_set():
            require_unchanged(uri, token)

    def _clips(self, uri: str, spans: Sequence[ClipSpan]) -> Iterator[Clip]:
        request = self._request
        also = [stream.view for stream in request.also]
        began = time.thread_time()
        idle = self._idle_starts(uri)
        left_out = frozenset() if self._video.in_full else idle
        still = deque(span for span in spans if span.start_us in left_out)
        busy = [span for span in spans if span.start_us not in left_out]
        decoded = self._decoder.decode(uri, busy, request.view, request.decode, also)
        while not self._stop.is_set():
            clip = next(decoded, None)
            while still and (clip is None or still[0].start_us < clip.span.start_us):
                self._num_yielded += 1
                yield Clip(self._video.video_id, still.popleft(), _NO_FRAMES, "", 0.0, idle=True)
            if clip is None:
                return
            yield self._counted(clip, (time.thread_time() - began) * 1e3, clip.span.start_us in idle)
            began = time.thread_time()

    def _idle_starts(self, uri: str) -> frozenset[int]:
        """Of all clips of the video: what is idle must not hang on which of them are wanted now."""
        video, share = self._video, self._request.idle
        if not share:
            return frozenset()
        if self._idle is None:
            spans = self._request.spans(video.start_us, video.end_us)
            self._idle = idle_starts(uri, spans, share, self._stop)
        return self._idle

    def _counted(self, clip: DecodedClip, decode_ms: float, idle: bool) -> Clip:
        self._num_yielded += 1
        if clip.damage:
            self._num_damaged += 1
            self._damage = self._damage or clip.damage
        video_id = self._video.video_id
        return Clip(video_id, clip.span, clip.frames_VTHWC, clip.damage, decode_ms, clip.also, idle)

    def _failure(self, num_planned: int, error: VideoError | None) -> Failure | None:
        missing = num_planned - self._num_yielded
        passing = error is not None and not error.permanent
        if error is None and not missing and not self._num_damaged:
            return None
        if error is not None:
            name, message = error.cause, str(error)
        elif missing:
            name = "Truncated"
            message = f"{missing} of {num_planned} clips lie beyond the end of the file"
            message += f"; {self._damage}" if self._damage else ""
        else:
            name, message = "Damaged", self._damage
        return Failure(
            video_id=self._video.video_id,
            uri=self._uri,
            stage=error.stage if error is not None else "decode",
            error=name,
            message=message[-MAX_MESSAGE_CHARS:],
            permanent=not passing,
            attempts=self._num_attempts,
            missing_rows=num_planned if passing else missing,
            damaged_rows=0 if passing else self._num_damaged,
            decoder=self._decoder.name,
        )
