"""What a video answers to a request: one stream of events, whoever opens the file and wherever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pipeline.frames import Delivered, Event, ProbeRequest, Request
from pipeline.video.attempts import VideoAttempts
from pipeline.video.backends import decoder_for
from pipeline.video.decoder import Decoder
from pipeline.video.probe_events import probe_events
from schemas.video import Video


def video_events(
    video: Video,
    request: Request,
    max_attempts: int,
    stop: threading.Event,
    *,
    before: Delivered = Delivered(),
    decoder: Decoder | None = None,
) -> Iterator[Event]:
    """Events of ``video`` to its VideoEnd, or until ``stop`` is set; ``before`` says what need not come again.

    ``decoder`` decodes; where not given, the one that the request names.
    """
    if isinstance(request, ProbeRequest):
        return probe_events(video, max_attempts, stop, before)
    decoder = decoder or decoder_for(request.decode)
    return VideoAttempts(decoder, video, request, max_attempts, stop, before).events()
