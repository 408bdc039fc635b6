"""RayRunner over the tiny archive: actors that are killed, and shards that kill."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from cluster.runner import RayRunner
from pipeline.store.read import read
from pipeline.store.verify import verify
from schemas.cluster import RayOptions
from schemas.model import ModelRef
from tests.cluster.taught import FAULTY, make_bright, taught, values
from tests.tiny import make_archive, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_of_our_own")]


@pytest.mark.parametrize("victim", ["ray::Worker", "ray::DecodeActor"])
def test_killed_actors_are_replaced(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    here = taught(archive, tmp_path / "here", None)
    stop, killed = threading.Event(), []

    def kill_some() -> None:
        while not stop.wait(0.3) and len(killed) < 3:
            if not list((tmp_path / "ray").glob("targets-*/data/*.parquet")):
                continue
            for process in psutil.process_iter(["cmdline"]):
                if victim in " ".join(process.info["cmdline"] or []) and _is_ours(process):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    stop.wait(1.0)
                    break

    thread = threading.Thread(target=kill_some)
    thread.start()
    try:
        with RayRunner(RayOptions(workers="2")) as runner:
            kwargs = {"seconds": 0.4}
            report = taught(
                archive, tmp_path / "ray", runner, teacher=ModelRef(factory=FAULTY, kwargs=kwargs)
            )
    finally:
        stop.set()
        thread.join()
    assert killed
    assert report.complete and verify(report.store).clean and not report.summary.failed_shards
    assert report.counts.rows == report.counts.planned
    assert values(report).equals(values(here))  # the slow teacher has the weights of the quick one


def _is_ours(process: psutil.Process) -> bool:
    return psutil.Process(os.getpid()) in process.parents()


def test_a_shard_that_kills_its_workers_is_given_up_and_the_rest_is_done(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 5)
    teacher = ModelRef(factory=FAULTY, kwargs={"die_above": 0.9})
    bright = make_bright(tmp_path / "archive" / "videos" / "bright.mp4")
    write_manifest(tmp_path / "archive", [*(f"videos/v{i:02d}.mp4" for i in range(5)), "videos/bright.mp4"])
    with RayRunner(RayOptions(workers="2", shard_attempts=2)) as runner:
        report = taught(source, tmp_path / "out", runner, teacher=teacher)
    assert len(report.summary.failed_shards) == 1
    assert "2 workers died" in next(iter(report.summary.failed_shards.values()))
    assert not report.complete and report.counts.pending_shards == 1
    assert verify(report.store).clean
    uris = set(read(report.store, ["uri"])["uri"].to_pylist())
    assert str(bright) not in uris and len(uris) == 5
