"""Each numbered video is encoded once a session, when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.video_files import VideoFile, make

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoFile]:
    folder = tmp_path_factory.mktemp("videos")
    made: dict[str, VideoFile] = {}

    def get(name: str) -> VideoFile:
        if name not in made:
            made[name] = make(name, folder)
        return made[name]

    return get


@pytest.fixture(scope="session")
def codecs() -> Path:
    folder = DATA / "codecs"
    if not folder.is_dir():
        pytest.skip("the real videos are not beside this checkout (../shared/data/codecs)")
    return folder
