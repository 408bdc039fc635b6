"""Some frames of a clip side by side, as one JPEG: what a person glances at.

Videos are decoded in a process apart: what should be looked at first is damaged more often than not, and a decoder that
crashes or hangs takes only that process with it. It does not know why anyone should look.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.video.pyav import PyAVDecoder
from schemas.clip import ClipSpan, sample_times
from schemas.errors import VideoError
from schemas.targets import DecodeSpec, ViewSpec

NUM_FRAMES = 3
SECONDS = 30.0
"""A video that takes longer to open and decode has no picture."""
_HEIGHT, _QUALITY = 120, 78
_LEAST, _MOST = 32, 4096


@dataclass(frozen=True)
class Stretch:
    """A part of a video, whose pictures are of this ``width`` and ``height``, as displayed."""

    uri: str
    start_us: int
    end_us: int
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """The first frame on the left; or why there is none."""

    jpeg: bytes | None
    missing: str = ""


def strips(stretches: Iterable[Stretch], seconds: float = SECONDS) -> Iterator[Strip]:
    """One of each, in order."""
    apart: _Apart | None = None
    try:
        for stretch in stretches:
            apart = apart or _Apart()
            found = apart.strip(stretch, seconds)
            if found is None:
                yield Strip(None, f"no picture within {seconds:g} s" if apart.runs else "the decoder crashed")
                apart.end()
                apart = None
            else:
                yield found
    finally:
        if apart is not None:
            apart.end()


class _Apart:
    """A process that answers one stretch after another, a line each. A program of its own and no fork of this one,
    which may have threads, nor by `multiprocessing`, which wants the caller's main module to be fit for it."""

    def __init__(self) -> None:
        program = "from pipeline.report.strips import serve; serve()"
        places = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        )
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="locum-strip")

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def strip(self, stretch: Stretch, seconds: float) -> Strip | None:
        """None where it crashed, or took too long."""
        to, of = self._process.stdin, self._process.stdout
        if to is None or of is None:
            raise ValueError("the process has no pipes")
        try:
            to.write(json.dumps(asdict(stretch)).encode() + b"\n")
            to.flush()
            line = self._reader.submit(of.readline).result(timeout=seconds)
        except (BrokenPipeError, TimeoutError):
            return None
        if not line:
            self._process.wait()
            return None
        said = json.loads(line)
        return Strip(None if said["jpeg"] is None else base64.b64decode(said["jpeg"]), said["missing"])

    def end(self) -> None:
        """Now, whatever it does."""
        self._process.kill()
        self._reader.shutdown()
        self._process.communicate()


def serve() -> None:
    """The process apart: a stretch a line on standard input, a strip a line on standard output."""
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        found = strip(Stretch(**json.loads(line)))
        jpeg = None if found.jpeg is None else base64.b64encode(found.jpeg).decode()
        print(json.dumps({"jpeg": jpeg, "missing": found.missing}), file=out, flush=True)


def strip(stretch: Stretch, num_frames: int = NUM_FRAMES) -> Strip:
    """Of one stretch, in this process."""
    s = stretch
    if s.end_us <= s.start_us:
        return Strip(None, "nothing of it could be read")
    wide = round(_HEIGHT * s.width / s.height) if s.width and s.height else _HEIGHT
    view = ViewSpec(width=min(_MOST, max(_LEAST, wide)), height=_HEIGHT)
    times_us = sample_times(s.start_us, s.end_us, s.end_us - s.start_us, num_frames)
    span = ClipSpan(s.start_us, s.end_us, times_us)
    try:
        found = [clip.frames_VTHWC[0] for clip in PyAVDecoder().decode(s.uri, [span], view, DecodeSpec())]
    except VideoError as e:
        return Strip(None, f"no frame can be read now ({e.cause})")
    if not found:
        return Strip(None, "the file holds no frame of it")
    out = io.BytesIO()
    side_by_side = np.concatenate(list(found[0]), axis=1)
    Image.fromarray(np.ascontiguousarray(side_by_side)).save(out, "JPEG", quality=_QUALITY, optimize=True)
    return Strip(out.getvalue())
