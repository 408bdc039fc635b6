"""RayRunner over the tiny archive: the same store as in one process, whatever befalls its actors."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from cluster.runner import RayRunner
from jobs.index import index
from jobs.teach import teach
from pipeline.models.resolve import resolve_targets
from pipeline.runner import Progress, RunSettings
from pipeline.store.read import read
from pipeline.store.verify import verify
from pipeline.tasks.teach import TeachTask
from schemas.cluster import RayOptions
from schemas.errors import ModelError, RetryableError, SettingsError
from schemas.frames import KeepSpec
from tests.cluster.taught import OPTIONS, taught, values
from tests.tiny import tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_of_our_own")]


def test_same_store_as_in_one_process(archive: Path, tmp_path: Path) -> None:
    here = taught(archive, tmp_path / "here", None)
    seen: list[Progress] = []
    with RayRunner(RayOptions(workers="2")) as runner:
        report = teach(
            str(archive), str(tmp_path / "ray"), tiny_spec(), OPTIONS, runner=runner, on_progress=seen.append
        )
    assert report.complete and verify(report.store).clean
    assert values(report).equals(values(here))
    assert seen[-1].clips_done == seen[-1].clips_total == report.summary.planned
    spent = report.summary.seconds_by_stage
    assert {
        "decode",
        "read",
        "transfer",
        "teacher",
        "uncertainty",
        "wait",
        "write",
    } <= spent.keys()
    assert spent["decode"] > 0 and spent["teacher"] > 0


def test_frames_kept_while_teaching(archive: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, keep=KeepSpec(num_frames=3, width=24, height=16))
    here = teach(str(archive), str(tmp_path / "here"), tiny_spec(), options)
    with RayRunner(RayOptions(workers="2")) as runner:
        report = teach(str(archive), str(tmp_path / "ray"), tiny_spec(), options, runner=runner)
    assert report.complete and report.frames is not None and here.frames is not None
    assert report.frames.summary.shards == 0  # all of them came with the targets
    assert verify(report.frames.store).clean and values(report).equals(values(here))
    assert read(report.frames.store).equals(read(here.frames.store))


def test_a_task_is_tried_out_where_workers_run() -> None:
    task = OPTIONS.task(resolve_targets(tiny_spec()))
    with RayRunner(RayOptions()) as runner:
        pid, tried = runner.try_out(task, seen_from_within)
        assert pid != os.getpid()
        assert tried == replace(task, device="cpu")
        with pytest.raises(ModelError, match="not this one"):
            runner.try_out(task, refuse)
        with pytest.raises(RetryableError, match="trying it out"):
            runner.try_out(task, die)


def seen_from_within(task: TeachTask) -> tuple[int, TeachTask]:
    return os.getpid(), task


def refuse(task: TeachTask) -> NoReturn:
    raise ModelError("not this one")


def die(task: TeachTask) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_decoders_may_be_several_and_the_buffer_small(archive: Path, tmp_path: Path) -> None:
    here = taught(archive, tmp_path / "here", None)
    options = RayOptions(workers="1", decoders=3, cpus_per_decoder=0.2, cpus_per_worker=0.2, buffer_mb=8)
    with RayRunner(options) as runner:
        report = taught(archive, tmp_path / "ray", runner)
    assert values(report).equals(values(here))


def test_time_is_up_before_a_worker_is_ready(archive: Path, tmp_path: Path) -> None:
    with RayRunner(RayOptions(workers="1")) as runner:
        index(str(archive), str(tmp_path / "out"), runner=runner)
        options = replace(OPTIONS, settings=RunSettings(max_seconds=0.6))
        report = teach(str(archive), str(tmp_path / "out"), tiny_spec(), options, runner=runner)
    assert report.summary.out_of_time and not report.complete
    assert report.counts.pending_shards == report.counts.shards > 0


def test_more_workers_than_find_a_place_do_not_hold_it_up(archive: Path, tmp_path: Path) -> None:
    with RayRunner(RayOptions(workers="1:64")) as runner:
        report = taught(archive, tmp_path / "out", runner)
    assert report.complete


def test_what_cannot_fit_is_refused_with_the_numbers(archive: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with RayRunner(RayOptions(workers="500")) as runner, pytest.raises(SettingsError, match="500 CPUs where"):
        taught(archive, tmp_path / "out", runner)
    assert time.monotonic() - started < 5 + 20  # the index ran before it
