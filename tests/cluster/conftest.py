"""Ray for tests: one of our own a module, and ways to find and kill its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.tiny import make_archive

MARK = "LOCUM_TEST_MARK"
POISON = Path(__file__).parent / "poison"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray_of_our_own() -> Iterator[None]:
    """Runners in this module join it instead of starting one each."""
    from cluster.session import connect
    from schemas.cluster import RayOptions

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(POISON)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        with connect(RayOptions(ray="local"), object_store_bytes=700 << 20):
            yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), 8)


def marked(mark: str, name: str = "") -> list[psutil.Process]:
    """Living processes with this mark in their environment, and ``name`` in their title."""
    found = []
    for process in psutil.process_iter(["status", "cmdline"]):
        try:
            if process.info["status"] == psutil.STATUS_ZOMBIE or process.environ().get(MARK) != mark:
                continue
            if name in " ".join(process.info["cmdline"] or []):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(there: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it is true; fails the test where it does not become so."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {seconds:g} s")
        time.sleep(0.05)
