"""Submitting to a real Ray cluster: it runs there, once, can be stopped, and goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from tests.cluster.conftest import ROOT, wait_until
from tests.cut_connections import proxy_to
from tests.ray_head import Head, ray_head
from tests.tiny import TINY_FLAGS, make_archive

pytestmark = pytest.mark.slow

ON_RAY = [flag for flag in TINY_FLAGS if flag != "--local"]
FAST = ["--num-threads", "1", "--batch-size", "2", "--shard-clips", "4", "--buffer-mb", "16"]
ADDRESS = "--address"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), 12)


def start(head: Head, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *argv],
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(head: Head, *argv: str, address: str | None = None) -> tuple[int, str, str]:
    verb, *rest = argv
    child = start(head, verb, *([rest.pop(0)] if verb == "jobs" else []), ADDRESS, address or head.url, *rest)
    try:
        out, err = child.communicate(timeout=240)
    finally:
        child.kill()
    return child.returncode, out, err


def jobs_of(head: Head, work: str) -> list[dict[str, Any]]:
    code, out, err = call(head, "jobs", "list", "--json")
    assert code == 0, err
    return [body for body in map(json.loads, out.splitlines()) if body["id"].startswith(work)]


def store_in(out: Path) -> ShardStore:
    (found,) = out.glob("targets-*")
    return ShardStore.open(str(found))


def test_a_folder_with_a_teacher_and_its_settings_goes_along(
    head: Head, archive: Path, tmp_path: Path
) -> None:
    along, out = tmp_path / "along", tmp_path / "out"
    along.mkdir()
    shutil.copy(ROOT / "tests" / "tiny.py", along / "parts.py")
    (along / "mine.py").write_text("from parts import build as build\n")
    (along / "locum.yaml").write_text(
        f"out: {out}\nteacher: {{factory: 'mine.py:build'}}\nclip: {{num_frames: 4, seconds: 0.5}}\n"
        "view: {width: 32, height: 24}\n"
    )
    command = ["--", "teach", str(archive), "--config", "locum.yaml", *FAST, "--workers", "2", "--json"]
    code, printed, err = call(head, "submit", "--working-dir", str(along), "--json", *command)
    assert code == 0, printed + err
    body = json.loads(printed)
    assert body["status"] == "SUCCEEDED" and body["attached"] is False
    assert body["answer"]["complete"] and body["answer"]["rows"] > 0
    assert verify(store_in(out)).clean and verify(store_in(out)).counts.complete
    (along / "mine.py").write_text("from parts import build as build  # other code, other work\n")
    code, printed, err = call(head, "submit", "--working-dir", str(along), "--json", "--detach", *command)
    assert code == 0 and json.loads(printed)["id"] != body["id"]
    assert call(head, "jobs", "stop", json.loads(printed)["id"])[0] == 0


def test_one_job_for_two_that_submit_which_survives_them_and_goes_on_after_a_stop(
    head: Head, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["--env", "TINY_TEACHER_SLEEP=3", "--", "teach", str(archive), "-o", str(out), *ON_RAY, *FAST]
    with proxy_to(head.url) as proxy:
        both = [start(head, "submit", ADDRESS, url, *command) for url in (proxy.url, head.url)]
        try:
            wait_until(lambda: list(out.glob("targets-*/data/*.parquet")) or both[0].poll() is not None, 180)
            assert proxy.cut() > 0
            both[1].send_signal(signal.SIGINT)
            _, err = both[1].communicate(timeout=30)
            assert both[1].returncode == 130 and "the job goes on" in err and "Traceback" not in err
            proxy.mend()
            (job,) = jobs_of(head, "locum-teach-")[:1]
            assert job["status"] == "RUNNING" and job["exit_code"] is None
            assert [each["id"] for each in jobs_of(head, job["id"])] == [job["id"]]
            code, printed, stop_err = call(head, "jobs", "stop", job["id"])
            assert code == 0 and "the same submit goes on" in printed, stop_err
            followed, first_err = both[0].communicate(timeout=60)
        finally:
            for each in both:
                each.kill()
    assert both[0].returncode == 143, first_err
    assert sorted("was submitted, at" in text for text in (err, first_err)) == [False, True]
    assert "does not answer" in first_err or "no Ray dashboard answers" in first_err
    code, log, _ = call(head, "jobs", "logs", job["id"])
    assert code == 0 and followed == log and "teach: " in log  # each line once, over the broken connection
    counts = verify(store_in(out)).counts
    assert verify(store_in(out)).clean and 0 < counts.rows < counts.planned

    code, printed, err = call(
        head, "submit", *command[2:], "--json"
    )  # without the sleep, and in JSON: the same work
    assert code == 0, printed + err
    body = json.loads(printed)
    assert body["complete"] and body["this_run"]["rows"] == counts.planned - counts.rows
    assert [each["id"] for each in jobs_of(head, job["id"])] == [f"{job['id']}-2", job["id"]]
    assert [each["exit_code"] for each in jobs_of(head, job["id"])] == [0, 143]


def test_the_commands_exit_code_is_that_of_submit(head: Head, tmp_path: Path) -> None:
    teach = ["teach", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out"), *TINY_FLAGS]
    code, printed, err = call(head, "submit", "--", *teach)
    assert code == 2 and "nowhere" in printed and "FAILED, exit code 2" in err
    assert call(head, "submit", "--", "status", str(tmp_path / "nothing"))[0] == 4


def test_nodes_without_locum_are_told_from_a_command_that_failed(head: Head, tmp_path: Path) -> None:
    code, _, err = call(head, "submit", "--env", "PATH=/usr/bin:/bin", "--", "status", str(tmp_path))
    assert code == 2 and "no locum on the PATH" in err


def test_a_job_survives_the_loss_of_a_node(archive: Path, tmp_path: Path) -> None:
    """A head without CPUs, as the docs have it, and two nodes; one is killed with all that it computes."""
    out = tmp_path / "out"
    command = ["--env", "TINY_TEACHER_SLEEP=1", "--", "teach", str(archive), "-o", str(out), *ON_RAY, *FAST]
    with ray_head(num_cpus=0) as head:
        nodes = [head.join(1), head.join(1)]
        child = start(head, "submit", ADDRESS, head.url, *command, "--wait-seconds", "120", "--workers", "2")
        try:
            wait_until(lambda: list(out.glob("targets-*/data/*.parquet")) or child.poll() is not None, 180)
            assert child.poll() is None, "\n".join(child.communicate())
            for process in [*nodes[1].children(recursive=True), nodes[1]]:
                process.kill()
            said, err = child.communicate(timeout=240)
        finally:
            child.kill()
    assert child.returncode == 0, said + err
    assert "died holding" in said
    proof = verify(store_in(out))
    assert proof.clean and proof.counts.complete and proof.counts.rows == proof.counts.planned
