"""torchcodec: exact, or refused by name. Skipped where it, or the FFmpeg libraries that it loads, are not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from pipeline.video.backends import decoder_for
from schemas.errors import SettingsError
from schemas.targets import DecodeSpec
from tests.pipeline.video.backend_checks import BackendChecks
from tests.pipeline.video.other_process import Child, child


@pytest.fixture(scope="module")
def decoder() -> Iterator[Child]:
    with child("torchcodec") as started:
        try:
            started.decode("", [])
        except SettingsError as error:
            pytest.skip(str(error))
        yield started


class TestTorchCodec(BackendChecks):
    pass


def test_without_torchcodec_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.delitem(sys.modules, "decord", raising=False)
    with pytest.raises(SettingsError, match=r"pip install 'locum\[torchcodec\]'"):
        decoder_for(DecodeSpec(backend="torchcodec"))


def test_not_beside_decord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", sys)
    with pytest.raises(SettingsError, match="one of both in a process"):
        decoder_for(DecodeSpec(backend="torchcodec"))
