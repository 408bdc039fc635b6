"""RayRunner over the tiny archive: videos, teachers and disks that are broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.runner import RayRunner
from jobs.teach import TeachReport, teach
from pipeline.breaker import BreakerSettings
from pipeline.runner import RunSettings
from pipeline.store.read import read
from pipeline.store.verify import verify
from schemas.cluster import RayOptions
from schemas.errors import CircuitOpenError, ModelError
from schemas.model import ModelRef
from tests.cluster.taught import FAULTY, OPTIONS, make_bright, taught
from tests.tiny import make_archive, make_video, tiny_spec, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_of_our_own")]


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
