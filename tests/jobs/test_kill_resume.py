"""SIGKILL the command at random moments and run it again: the end is the same as without."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from tests.tiny import TINY_FLAGS, make_archive

TIMINGS = ("decode_ms", "teacher_ms")


def command(source: Path, out: Path, *flags: str) -> list[str]:
    args = ["teach", str(source), "-o", str(out), *TINY_FLAGS, "--shard-clips", "4", "--num-threads", "1"]
    return [sys.executable, "-m", "jobs.cli", *args, "--batch-size", "2", "--quiet", *flags]


def environment(sleep: float) -> dict[str, str]:
    return {**os.environ, "TINY_TEACHER_SLEEP": str(sleep), "OMP_NUM_THREADS": "1"}


def store_in(out: Path) -> ShardStore:
    (found,) = out.glob("targets-*")
    return ShardStore.open(str(found))


@pytest.mark.slow
def test_killed_at_random_and_resumed(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 8)
    subprocess.run(command(source, tmp_path / "whole"), env=environment(0), check=True)
    rng = random.Random(5)
    kills = 0
    for _ in range(40):
        before = len(list((tmp_path / "out").glob("targets-*/data/*.parquet")))
        child = subprocess.Popen(
            command(source, tmp_path / "out"), env=environment(0.15), start_new_session=True
        )
        deadline = time.monotonic() + 60
        # Until the first file of this run appears the moment is any; after that it is within some shards.
        wait_for_data = rng.random() < 0.7
        while child.poll() is None and wait_for_data and time.monotonic() < deadline:
            if len(list((tmp_path / "out").glob("targets-*/data/*.parquet"))) > before:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * (0.4 if wait_for_data else 3.0))
        if child.poll() is not None:
            assert child.returncode == 0
            break
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
        if list((tmp_path / "out").glob("targets-*/spec.json")):
            proof = verify(store_in(tmp_path / "out"))
            assert proof.clean, proof.problems
    else:
        pytest.fail("40 runs did not finish it")
    assert kills >= 3
    whole, resumed = store_in(tmp_path / "whole"), store_in(tmp_path / "out")
    assert verify(resumed).clean and verify(resumed).counts.complete
    assert read(resumed).drop_columns(TIMINGS).equals(read(whole).drop_columns(TIMINGS))


@pytest.mark.slow
def test_two_processes_on_one_store(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 8)
    runs = [subprocess.Popen(command(source, tmp_path / "out"), env=environment(0.05)) for _ in range(2)]
    assert [p.wait(timeout=120) for p in runs] == [0, 0]
    proof = verify(store_in(tmp_path / "out"))
    assert proof.clean and proof.counts.complete, proof.problems


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_cleanly(tmp_path: Path, signum: int, code: int) -> None:
    source = make_archive(tmp_path / "archive", 6)
    child = subprocess.Popen(
        command(source, tmp_path / "out"), env=environment(0.3), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("targets-*/data/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signum)
    _, err = child.communicate(timeout=30)
    assert child.returncode == code, err
    assert "run the same command again" in err and "Traceback" not in err
    assert verify(store_in(tmp_path / "out")).clean
    subprocess.run(command(source, tmp_path / "out"), env=environment(0), check=True)
    assert verify(store_in(tmp_path / "out")).counts.complete
