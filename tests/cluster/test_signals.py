"""The command on a Ray of its own: signals end it, nothing is left behind, and it joins nobody by accident."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from cluster.session import address_of
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from schemas.cluster import RayOptions
from tests.cluster.conftest import MARK, marked, wait_until
from tests.tiny import TINY_FLAGS, make_archive

ON_RAY = [flag for flag in TINY_FLAGS if flag != "--local"]


def command(source: Path, out: Path, *flags: str) -> list[str]:
    fast = ["--shard-clips", "4", "--num-threads", "1", "--batch-size", "2"]
    return [sys.executable, "-m", "jobs.cli", "teach", str(source), "-o", str(out), *ON_RAY, *fast, *flags]


def environment(mark: str, sleep: float) -> dict[str, str]:
    # An address that nothing answers at: whoever followed it would fail.
    more = {"TINY_TEACHER_SLEEP": str(sleep), MARK: mark, "RAY_ADDRESS": "192.0.2.1:6379"}
    return {**os.environ, **more, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, signum: int, code: int) -> None:
    source, mark = make_archive(tmp_path / "archive", 6), uuid.uuid4().hex
    child = subprocess.Popen(
        command(source, tmp_path / "out"), env=environment(mark, 0.5), stderr=subprocess.PIPE, text=True
    )
    wait_until(
        lambda: list((tmp_path / "out").glob("targets-*/data/*.parquet")) or child.poll() is not None, 120
    )
    assert len(marked(mark)) > 4  # Ray, workers, decode actors
    child.send_signal(signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    if code > 0:
        assert "run the same command again" in err and "Traceback" not in err
    wait_until(lambda: not marked(mark), 120)
    (found,) = (tmp_path / "out").glob("targets-*")
    store = ShardStore.open(str(found))
    assert verify(store).clean and not verify(store).counts.complete
    if signum == signal.SIGKILL:
        done = subprocess.run(
            command(source, tmp_path / "out", "--json", "--profile"),
            env=environment(mark, 0),
            check=True,
            capture_output=True,
            text=True,
        )
        assert json.loads(done.stdout)["complete"]  # nothing of Ray's is printed among it
        assert "teacher" in done.stderr and "ms a clip" in done.stderr
        assert verify(store).clean and not marked(mark)


@pytest.mark.slow
def test_what_cannot_fit_is_said_before_ray_is_started(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 2)
    started = time.monotonic()
    done = subprocess.run(
        command(source, tmp_path / "out", "--workers", "900"),
        env=environment("", 0),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "900 CPUs where the cluster has" in done.stderr
    assert not list((tmp_path / "out").glob("*/data/*"))  # not even the index was begun
    assert "Traceback" not in done.stderr and time.monotonic() - started < 60


def test_only_a_submitted_job_joins_a_cluster_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert address_of(RayOptions()) == "local"
    assert address_of(RayOptions(ray="auto")) == "auto"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert address_of(RayOptions()) == "auto"
    assert address_of(RayOptions(ray="local")) == "local"
