"""decord: exact, or refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.video import decord_backend
from pipeline.video.backends import decoder_for
from pipeline.video.by_number import decode_by_number
from schemas.clip import ClipSpan, ClipSpec, clip_spans
from schemas.errors import SettingsError, VideoError
from schemas.targets import DecodeSpec
from tests.pipeline.video.backend_checks import BackendChecks
from tests.pipeline.video.other_process import SMALL, Child, child
from tests.tiny import TINY_FLAGS, make_archive, write_manifest
from tests.video_files import VideoFile

Get = Callable[[str], VideoFile]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Child]:
    with child("decord") as started:
        yield started


class TestDecord(BackendChecks):
    pass


def test_without_decord_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    with pytest.raises(SettingsError, match="pip install decord2"):
        decoder_for(DecodeSpec(backend="decord"))


def test_not_beside_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", sys)
    with pytest.raises(SettingsError, match="one of both in a process"):
        decoder_for(DecodeSpec(backend="decord"))


def test_a_large_file_of_an_object_store_is_refused(video: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    with fsspec.open("memory://large/a.mp4", "wb") as out:
        out.write(video("h264_b.mp4").path.read_bytes())
    monkeypatch.setattr(decord_backend, "MAX_BYTES_IN_MEMORY", 1000)
    monkeypatch.setitem(sys.modules, "decord", sys)
    with pytest.raises(VideoError, match=r"would read it whole.*--decode.backend pyav") as caught:
        spans = [ClipSpan(0, 1, (0,))]
        list(
            decode_by_number(
                "decord",
                lambda media, scan: decord_backend._source(media),  # type: ignore[arg-type,return-value]
                "memory://large/a.mp4",
                spans,
                [SMALL],
                DecodeSpec(),
            )
        )
    assert caught.value.permanent


def test_nothing_is_printed(video: Get, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = video("h264_faststart.mp4")
    data = bytearray(file.path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path = tmp_path / "zeros.mp4"
    path.write_bytes(data)
    with child("decord") as fresh, pytest.raises(VideoError, match=r"--decode\.backend pyav"):
        fresh.decode(str(path), clip_spans(0, file.end_us, ClipSpec()))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_teach_with_decord(video: Get, tmp_path: Path) -> None:
    """All rows of what it may decode; what it may not is in quarantine, with the case and the remedy."""
    make_archive(tmp_path, 3)
    (tmp_path / "videos" / "open.mp4").write_bytes(video("open_gop.mp4").path.read_bytes())
    names = [*(f"videos/v{i:02d}.mp4" for i in range(3)), "videos/open.mp4"]
    manifest = write_manifest(tmp_path, names)
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "teach",
        str(manifest),
        "-o",
        str(tmp_path / "out"),
        "--json",
    ]
    command += [*TINY_FLAGS, "--decode.backend", "decord"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["complete"] and report["quarantined_videos"] == 1
    assert 0 < report["rows"] == report["planned"] - report["quarantined_rows"]
    failures = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "failures", report["store"]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "DecoderKnownWrong" in failures.stdout and "open GOP" in failures.stdout
