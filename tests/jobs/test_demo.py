"""The demo, small: rendered, taught by the shipped teacher, verified, summarised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import run
from pipeline.store.shard_store import ShardStore


@pytest.mark.slow
def test_demo_runs_and_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["demo", "-o", str(tmp_path / "out"), "--videos", "10", "--quiet", "--local"]
    assert run([*argv, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["clean"] is True and body["complete"] is True and body["videos"] == 10
    assert body["rows"] == body["planned"] > 10
    assert body["video_accuracy"] > 0.4  # ten classes: chance is 0.1
    assert ShardStore.open(body["store"]).document.fingerprint == body["fingerprint"]
    assert run(argv) == 0
    text = capsys.readouterr().out
    assert (
        "all of it was there already" in text and "clean" in text and body["store"].rsplit("/", 1)[-1] in text
    )


def test_the_demo_renders_locally_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "-o", "s3://bucket/demo"]) == 2
    assert "s3://bucket/demo" in capsys.readouterr().err
