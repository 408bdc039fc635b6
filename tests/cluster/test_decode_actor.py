"""Files for last words: swept when nobody came for them, and never from under an actor that lives."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cluster.decode_actor import WORDS_PREFIX, sweep_words


def test_files_of_dead_actors_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    dead, alive = int(gone.stdout), os.getpid()
    long_ago = time.time() - 3600
    files = {
        "dead and old": tmp_path / f"{WORDS_PREFIX}{dead}-a",
        "dead and new": tmp_path / f"{WORDS_PREFIX}{dead}-b",
        "alive and old": tmp_path / f"{WORDS_PREFIX}{alive}-c",
        "no actor's": tmp_path / f"{WORDS_PREFIX}notes-d",
        "somebody else's": tmp_path / "other-1-e",
    }
    for what, path in files.items():
        path.touch()
        if "new" not in what:
            os.utime(path, (long_ago, long_ago))
    sweep_words()
    assert {what for what, path in files.items() if not path.exists()} == {"dead and old"}
