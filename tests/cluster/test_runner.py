"""RayRunner over the tiny archive: the same store as in one process, whatever befalls its actors."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil
import pyarrow as pa
import pytest

from cluster.runner import RayRunner
from jobs.index import index
from jobs.teach import TeachOptions, TeachReport, teach
from pipeline.breaker import BreakerSettings
from pipeline.models.resolve import resolve_targets
from pipeline.runner import Progress, Runner, RunSettings
from pipeline.store.read import read
from pipeline.store.verify import verify
from pipeline.tasks.teach import TeachTask
from schemas.cluster import RayOptions
from schemas.errors import CircuitOpenError, ModelError, RetryableError, SettingsError
from schemas.frames import KeepSpec
from schemas.model import ModelRef
from tests.tiny import make_archive, make_video, tiny_spec, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_of_our_own")]

TIMINGS = ("decode_ms", "teacher_ms")
OPTIONS = TeachOptions(shard_clips=4, num_threads=1, batch_size=2)
FAULTY = f"{Path(__file__).parent / 'faulty_teacher.py'}:build"


def values(report: TeachReport) -> pa.Table:
    return read(report.store).drop_columns(TIMINGS)


def taught(source: Path, out: Path, runner: Runner | None, **changes: object) -> TeachReport:
    spec = tiny_spec(**changes)
    return teach(str(source), str(out), spec, OPTIONS, runner=runner)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), 8)


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
        with pytest.raises(RetryableError, match="trying the teacher out"):
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


def make_bright(path: Path) -> Path:
    """A white video."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_teacher_that_says_impossible_things_ends_the_run(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 2)
    bright = make_bright(tmp_path / "archive" / "videos" / "v01.mp4")
    teacher = ModelRef(factory=FAULTY, kwargs={"nan_above": 0.9})
    with RayRunner(RayOptions(workers="1")) as runner, pytest.raises(ModelError, match=bright.name):
        taught(source, tmp_path / "out", runner, teacher=teacher)


def test_shard_after_shard_with_an_exception_ends_the_run(archive: Path, tmp_path: Path) -> None:
    teacher = ModelRef(factory=FAULTY, kwargs={"raise_after": 2})
    with RayRunner(RayOptions(workers="1")) as runner, pytest.raises(Exception, match="on purpose"):
        taught(archive, tmp_path / "out", runner, teacher=teacher)


def test_time_is_up_before_a_worker_is_ready(archive: Path, tmp_path: Path) -> None:
    with RayRunner(RayOptions(workers="1")) as runner:
        index(str(archive), str(tmp_path / "out"), runner=runner)
        options = replace(OPTIONS, settings=RunSettings(max_seconds=0.6))
        report = teach(str(archive), str(tmp_path / "out"), tiny_spec(), options, runner=runner)
    assert report.summary.out_of_time and not report.complete
    assert report.counts.pending_shards == report.counts.shards > 0


def test_the_circuit_breaker_stops_it(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "archive", 4)
    with RayRunner(RayOptions(workers="1"), max_attempts=1) as runner:
        taught(source, tmp_path / "out", runner)
        for path in (tmp_path / "archive" / "videos").iterdir():
            path.unlink()
        spec = tiny_spec(teacher=ModelRef(factory=FAULTY))
        settings = RunSettings(breaker=BreakerSettings(max_transient_share=0.1, min_failures=3))
        index = next((tmp_path / "out").glob("videos-*"))
        with pytest.raises(CircuitOpenError, match="could not be reached"):
            teach(str(index), str(tmp_path / "out"), spec, replace(OPTIONS, settings=settings), runner=runner)


def test_more_workers_than_find_a_place_do_not_hold_it_up(archive: Path, tmp_path: Path) -> None:
    with RayRunner(RayOptions(workers="1:64")) as runner:
        report = taught(archive, tmp_path / "out", runner)
    assert report.complete


def test_what_cannot_fit_is_refused_with_the_numbers(archive: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with RayRunner(RayOptions(workers="500")) as runner, pytest.raises(SettingsError, match="500 CPUs where"):
        taught(archive, tmp_path / "out", runner)
    assert time.monotonic() - started < 5 + 20  # the index ran before it


def test_poisoned_videos_are_quarantined_and_all_others_have_their_rows(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    make_archive(folder, 4)
    good = [f"videos/v{i:02d}.mp4" for i in range(4)]
    data = (folder / good[0]).read_bytes()
    for name, body in {"trunc": data[: len(data) // 2], "empty": b"", "text": b"not a video " * 99}.items():
        (folder / f"videos/{name}.mp4").write_bytes(body)
    words = {
        "segfault": "DecoderCrashed",
        "gilhang": "DecoderHung",
        "spin": "DecoderHung",
        "swell": "DecoderSwelled",
        "die": "DecoderKilled",
        "probe-segfault": "DecoderCrashed",
        "probe-gilhang": "DecoderHung",
    }
    for i, word in enumerate(words):
        make_video(folder / f"videos/{word}.mp4", 7000 + 100 * i, 30)
    bad = [f"videos/{n}.mp4" for n in ("trunc", "empty", "text", *words)]
    source = write_manifest(folder, [*good, *bad])
    options = RayOptions(
        workers="1",
        stall_seconds=4,
        decoder_memory_mb=400,
        cpus_per_worker=0.2,
        cpus_per_decoder=0.2,
        decoders=3,
    )
    with RayRunner(options, max_attempts=2) as runner:
        report = taught(source, tmp_path / "out", runner)
    assert report.complete and verify(report.store).clean
    uris = read(report.store, ["uri"])["uri"].to_pylist()
    assert {Path(u).name for u in uris} == {Path(g).name for g in good}
    found = {Path(f.uri).stem: f for _, f in all_failures(report)}
    assert found.keys() == {Path(b).stem for b in bad}
    for word, error in words.items():
        assert (found[word].error, found[word].attempts) == (error, 2), found[word]
    assert "Segmentation fault" in found["segfault"].message
    assert "does not answer" in found["gilhang"].message
    assert found["empty"].error == "EmptyFile"


def all_failures(report: TeachReport) -> list[tuple[object, object]]:
    from pipeline.store.read import failures

    return list(failures(report.store))
