"""A kill at any point of any operation leaves a store that opens, shows one state, and can be finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import environment

ROOT = Path(__file__).resolve().parents[3]
# Points at which each can be killed, or more: files it writes (times seven steps or so on a local disk).
LOCAL = {"create": 12, "add_plan": 10, "commit": 16, "remove": 22, "retry": 20, "derive": 14, "sweep": 22}
S3 = {"create": 1, "add_plan": 1, "commit": 2, "remove": 3, "retry": 3, "derive": 2, "sweep": 3}


def killed(place: str, names: list[str], env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.store.kill_points", place, *names],
        cwd=ROOT,
        env={**os.environ, **one_thread, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(done.stdout))


def test_a_kill_at_any_point_on_a_local_disk(tmp_path: Path) -> None:
    for report in killed(str(tmp_path), list(LOCAL)):
        assert report["wrong"] == {}, report
        assert report["points"] >= LOCAL[report["operation"]], report


@pytest.mark.s3
@pytest.mark.slow
def test_a_kill_at_any_point_on_an_object_store(s3_bucket: str, s3_server: str) -> None:
    for report in killed(s3_bucket, list(S3), environment(s3_server)):
        assert report["wrong"] == {}, report
        assert report["points"] >= S3[report["operation"]], report
