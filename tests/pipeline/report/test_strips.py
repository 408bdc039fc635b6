"""Pictures of clips: the frames that were asked for; and decoders that crash, hang or find nothing."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline.report.strips as module
from pipeline.report.strips import NUM_FRAMES, Stretch, strip, strips
from tests.video_files import make


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Stretch:
    made = make("h264_b.mp4", tmp_path_factory.mktemp("film"))
    return Stretch(str(made.path), 0, 4_000_000, 160, 120)


def test_frames_stand_beside_each_other(film: Stretch) -> None:
    found = strip(film)
    assert found.jpeg is not None
    picture = Image.open(io.BytesIO(found.jpeg))
    assert picture.size == (NUM_FRAMES * 160, 120)
    pixels = np.asarray(picture, np.int16)
    first, last = pixels[:, :160], pixels[:, -160:]
    assert np.abs(first - last).mean() > 2  # other frames


def test_what_cannot_be_shown_says_why(film: Stretch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    asked = [
        Stretch(str(broken), 0, 1_000_000, 64, 48),
        Stretch(str(tmp_path / "gone.mp4"), 0, 1_000_000, 64, 48),
        Stretch(film.uri, 0, 0, 64, 48),
        Stretch(film.uri, 10**12, 10**12 + 1_000_000, 64, 48),
        film,
    ]
    found = list(strips(asked))
    assert [s.jpeg is None for s in found] == [True, True, True, True, False]
    assert all(s.missing for s in found[:4]) and found[4].jpeg == strip(film).jpeg


def test_a_decoder_that_crashes_or_hangs_costs_one_picture(
    film: Stretch, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    real = module._Apart

    class Watched(real):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            started.append(self._process)

        def strip(self, stretch: Stretch, seconds: float) -> object:
            if stretch.uri == "crash":
                os.kill(self._process.pid, signal.SIGKILL)
                return super().strip(film, seconds)
            if stretch.uri == "hang":
                os.kill(self._process.pid, signal.SIGSTOP)
                return super().strip(film, 0.5)
            return super().strip(stretch, seconds)

    monkeypatch.setattr(module, "_Apart", Watched)
    crash, hang = (Stretch(name, 0, 1_000_000, 64, 48) for name in ("crash", "hang"))
    began = time.monotonic()
    found = list(strips([film, crash, film, hang, film]))
    assert [s.jpeg is not None for s in found] == [True, False, True, False, True]
    assert found[1].missing == "the decoder crashed" and "no picture within" in found[3].missing
    assert len(started) == 3 and all(p.poll() is not None for p in started)
    assert time.monotonic() - began < 60
