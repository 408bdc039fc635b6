"""The main job on small real files: what is computed, what is not computed again, and what is never lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.prune import prune
from jobs.teach import TeachOptions, TeachReport, teach
from pipeline.local_runner import LocalRunner
from pipeline.runner import RunSettings
from pipeline.store.mend import retry
from pipeline.store.read import failures, read
from pipeline.store.verify import count, verify
from pipeline.tasks import batch_probe
from pipeline.tasks.targets_table import derived_columns
from pipeline.tasks.teach import DEFAULT_BATCH
from pipeline.video.frame_source import LocalFrameSource
from schemas.clip import ClipSpec, count_clips
from schemas.errors import CircuitOpenError, ManifestError, ModelError, RetryableError
from schemas.model import ModelRef
from schemas.targets import LogitsSpec, TargetSpec, ViewSpec
from tests.tiny import FACTORY, make_archive, make_video, tiny_spec, write_manifest

OPTIONS = TeachOptions(batch_size=4, shard_clips=6, num_threads=1)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive")


def run(source: object, out: Path, spec: TargetSpec | None = None, **options: object) -> TeachReport:
    return teach(str(source), str(out), spec or tiny_spec(), replace(OPTIONS, **options))  # type: ignore[arg-type]


def keys(report: TeachReport) -> list[tuple[str, int]]:
    table = read(report.store, ["video_id", "start_us"])
    return list(zip(table["video_id"].to_pylist(), table["start_us"].to_pylist(), strict=True))


def test_every_planned_clip_has_a_row(archive: Path, tmp_path: Path) -> None:
    report = run(archive, tmp_path / "out")
    expected = sum(count_clips(n * 40_000, tiny_spec().clip) for n in (25, 35, 45, 55, 65, 75))
    assert (report.counts.rows, report.counts.planned, report.counts.complete) == (expected, expected, True)
    assert report.summary.shards > 1
    proof = verify(report.store)
    assert proof.clean, proof.problems
    table = read(report.store)
    assert set(table["label"].to_pylist()) == {"walk", "run", "sit"}
    assert not pc.any(table["damaged"]).as_py()


def test_columns_are_what_the_logits_say(archive: Path, tmp_path: Path) -> None:
    table = read(run(archive, tmp_path / "out", tiny_spec(logits=LogitsSpec(dtype="float32"))).store)
    logits_NK = np.stack(table["logits"].to_numpy())
    video_N = np.unique(table["video_id"].to_pylist(), return_inverse=True)[1]
    for name, values in derived_columns(logits_NK, video_N).items():
        np.testing.assert_allclose(table[name].to_numpy(), values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_logits_are_the_models_own(archive: Path, tmp_path: Path) -> None:
    """The whole chain against a few lines of NumPy and the bare model."""
    import torch

    from pipeline.video.pyav import PyAVDecoder
    from schemas.clip import clip_spans
    from tests.tiny import build

    spec = tiny_spec(logits=LogitsSpec(dtype="float32"))
    table = read(run(archive, tmp_path / "out", spec).store)
    uri = table["uri"][0].as_py()
    rows = table.filter(pc.equal(table["uri"], uri)).sort_by("start_us")
    spans = clip_spans(0, int(rows["end_us"].to_numpy().max()), spec.clip)
    clips = list(PyAVDecoder().decode(uri, spans, spec.view, spec.decode))
    frames = torch.from_numpy(np.stack([c.frames_VTHWC[0] for c in clips])).float() / 255
    with torch.inference_mode():
        expected = build()(frames.permute(0, 4, 1, 2, 3)).numpy()
    np.testing.assert_allclose(np.stack(rows["logits"].to_numpy()), expected, rtol=1e-5, atol=1e-5)


def test_running_again_computes_nothing(archive: Path, tmp_path: Path) -> None:
    first = run(archive, tmp_path / "out")
    second = run(archive, tmp_path / "out")
    assert (second.summary.rows, second.added.new_videos) == (0, 0)
    assert second.store.generations() == [1]
    assert keys(first) == keys(second)


def test_an_interrupted_run_is_finished_by_the_next(archive: Path, tmp_path: Path) -> None:
    whole = run(archive, tmp_path / "whole")
    run(archive, tmp_path / "out", limit=None)
    part = run(archive, tmp_path / "part")
    for name in part.store.files.list("data")[::2]:
        part.store.files.delete(f"data/{name}")
    assert not count(part.store).complete
    done = run(archive, tmp_path / "part")
    assert done.counts.complete
    timings = ("decode_ms", "teacher_ms")
    assert read(done.store).drop_columns(timings).equals(read(whole.store).drop_columns(timings))


def test_a_store_keeps_the_batch_that_it_was_begun_with(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_probe, "probe_batch", lambda task: 5)
    assert run(archive, tmp_path / "out", batch_size=None).batch_size == 5
    monkeypatch.setattr(batch_probe, "probe_batch", lambda task: pytest.fail("measured again"))
    make_video(archive.parent / "videos" / "late.mp4", 55)
    write_manifest(archive.parent, ["videos/v00.mp4", "videos/late.mp4"])
    later = run(archive, tmp_path / "out", batch_size=None)
    assert (later.batch_size, later.added.new_videos) == (5, 1)
    assert run(archive, tmp_path / "out", batch_size=2).batch_size == 2
    assert run(archive, tmp_path / "other", batch_size=3).batch_size == 3
    assert run(archive, tmp_path / "other", batch_size=None).batch_size == 3


def test_without_a_probe_the_default_batch_is_taken(archive: Path, tmp_path: Path) -> None:
    class Untried(LocalRunner):
        def try_out(self, task: object, function: object) -> NoReturn:
            raise RetryableError("no worker")

    runner = Untried(LocalFrameSource)
    report = teach(
        str(archive), str(tmp_path / "out"), tiny_spec(), TeachOptions(num_threads=1), runner=runner
    )
    assert (report.batch_size, report.complete) == (DEFAULT_BATCH, True)


def test_time_limit_stops_between_shards_and_says_so(archive: Path, tmp_path: Path) -> None:
    report = run(archive, tmp_path / "out", settings=RunSettings(max_seconds=1e-9))
    # The index alone uses the time up; nothing is taught, and the next run goes on.
    assert report.index.summary.out_of_time and not report.complete and report.counts.rows == 0
    assert run(archive, tmp_path / "out").complete


@pytest.mark.parametrize(
    "change",
    [
        {"clip": ClipSpec(num_frames=4, seconds=0.4)},
        {"view": ViewSpec(width=24, height=24)},
        {"teacher": ModelRef(factory=FACTORY, kwargs={"num_classes": 7})},
        {"logits": LogitsSpec(top_k=2)},
    ],
    ids=["clip", "view", "teacher", "logits"],
)
def test_another_spec_goes_to_another_store(archive: Path, tmp_path: Path, change: dict[str, object]) -> None:
    first = run(archive, tmp_path / "out")
    other = run(archive, tmp_path / "out", tiny_spec(**change))
    assert first.store.url != other.store.url
    assert first.index.store.url == other.index.store.url
    assert other.counts.complete and verify(first.store).clean and verify(other.store).clean


def test_changed_weights_go_to_another_store(archive: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tests.tiny import build

    state = build().state_dict()
    path = tmp_path / "w.safetensors"
    urls = []
    for scale in (1.0, 1.001):
        save_file({k: v * scale for k, v in state.items()}, path)
        spec = tiny_spec(teacher=ModelRef(factory=FACTORY, weights=str(path)))
        urls.append(run(archive, tmp_path / "out", spec).store.url)
    assert len(set(urls)) == 2


def test_added_videos_compute_only_their_rows(archive: Path, tmp_path: Path) -> None:
    first = run(archive.parent / "videos", tmp_path / "out")
    before = {n: first.store.files.read(f"data/{n}") for n in first.store.files.list("data")}
    for i in range(3):
        make_video(archive.parent / "videos" / f"new{i}.mp4", 5000 + 100 * i)
    second = run(archive.parent / "videos", tmp_path / "out")
    assert second.added.new_videos == 3
    assert second.summary.rows == 3 * count_clips(1_600_000, tiny_spec().clip)
    assert {n: second.store.files.read(f"data/{n}") for n in before} == before
    assert verify(second.store).clean and second.counts.complete


def test_a_moved_or_copied_video_computes_nothing(archive: Path, tmp_path: Path) -> None:
    folder = archive.parent / "videos"
    first = run(folder, tmp_path / "out")
    (folder / "v00.mp4").rename(folder / "moved.mp4")
    shutil.copy(folder / "v01.mp4", folder / "zz-copy.mp4")
    second = run(folder, tmp_path / "out")
    assert (second.added.new_videos, second.summary.rows, second.added.amended) == (0, 0, 2)
    uris = {Path(u).name for u in read(second.store, ["uri"])["uri"].to_pylist()}
    assert "moved.mp4" in uris and "v00.mp4" not in uris
    assert keys(second) == keys(first)
    third = run(folder, tmp_path / "out")
    assert third.added.is_empty


def test_a_corrected_label_costs_no_inference(archive: Path, tmp_path: Path) -> None:
    run(archive, tmp_path / "out")
    names = [f"videos/v{i:02d}.mp4" for i in range(6)]
    write_manifest(archive.parent, names, ["jump"] * 6)
    second = run(archive, tmp_path / "out")
    assert (second.summary.rows, second.added.new_videos, second.index.new_items) == (0, 0, 0)
    assert set(read(second.store, ["label"])["label"].to_pylist()) == {"jump"}


def test_new_bytes_under_an_old_name_supersede(archive: Path, tmp_path: Path) -> None:
    folder = archive.parent / "videos"
    before = {k[0] for k in keys(run(folder, tmp_path / "out"))}
    make_video(folder / "v00.mp4", 7000)
    second = run(folder, tmp_path / "out")
    assert (second.added.new_videos, second.added.superseded) == (1, 1)
    rows = read(second.store, ["uri", "video_id"])
    mine = rows.filter(pc.match_substring(rows["uri"], "v00.mp4"))["video_id"].unique().to_pylist()
    assert len(mine) == 1 and mine[0] not in before
    assert verify(second.store).clean and second.counts.complete


def test_a_removed_video_never_comes_back(archive: Path, tmp_path: Path) -> None:
    first = run(archive, tmp_path / "out")
    gone = str(archive.parent / "videos" / "v02.mp4")
    report = prune(first.store.url, uris=[gone], reason="asked to")
    assert report["removed_videos"] == 1 and report["removed_rows"] > 0
    second = run(archive, tmp_path / "out")
    assert second.summary.rows == 0 and second.counts.complete
    assert gone not in read(second.store, ["uri"])["uri"].to_pylist()
    for path in (second.store.files.at(f"data/{n}") for n in second.store.files.list("data")):
        assert set(pa.parquet.read_table(path, columns=["video_id"])["video_id"].to_pylist()) <= {
            k[0] for k in keys(second)
        }


def test_bad_files_are_quarantined_and_the_rest_is_done(archive: Path, tmp_path: Path) -> None:
    folder = archive.parent / "videos"
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    whole = (folder / "v05.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    report = run(folder, tmp_path / "out")
    assert report.counts.complete and verify(report.store).clean
    bad = {Path(f.uri).name: f for _, f in failures(report.store)}
    assert {"empty.mp4", "text.mp4"} <= set(bad)
    assert all(f.permanent and f.message for f in bad.values())
    assert len({k[0] for k in keys(report)}) >= 6
    assert run(folder, tmp_path / "out").summary.rows == 0


def test_unreachable_videos_are_transient_and_can_be_retried(archive: Path, tmp_path: Path) -> None:
    names = [f"videos/v{i:02d}.mp4" for i in range(6)]
    away = archive.parent / "videos" / "v03.mp4"
    run(archive, tmp_path / "out0")  # index elsewhere; this one sees the file vanish between index and teach
    report_index = run(archive, tmp_path / "out", settings=RunSettings())
    assert report_index.counts.complete
    spec = tiny_spec(clip=ClipSpec(num_frames=4, seconds=0.45))
    hidden = away.with_suffix(".away")
    from jobs.index import catalog, index
    from jobs.planning import add_videos
    from jobs.teach import open_targets
    from pipeline.local_runner import LocalRunner
    from pipeline.models.resolve import resolve_targets
    from pipeline.video.frame_source import LocalFrameSource
    from pipeline.video.pyav import PyAVDecoder

    resolved = resolve_targets(spec)
    indexed = index(str(archive), str(tmp_path / "out"))
    store = open_targets(str(tmp_path / "out"), "targets", resolved)
    videos = catalog(indexed.store, indexed.entries)
    add_videos(store, videos, resolved.clip, notes={}, shard_clips=6)
    away.rename(hidden)
    runner = LocalRunner(lambda: LocalFrameSource(PyAVDecoder(), max_attempts=2))
    runner.run(OPTIONS.task(resolved), store)
    (_, failure), *others = failures(store)
    assert not others and not failure.permanent and failure.missing_rows > 0
    assert count(store).complete
    hidden.rename(away)
    assert retry(store).reopened == 1
    assert not count(store).complete
    runner.run(OPTIONS.task(resolved), store)
    assert not failures(store) and verify(store).clean and count(store).complete
    assert len(set(read(store, ["video_id"])["video_id"].to_pylist())) == len(names)


def test_the_circuit_opens_before_an_archive_is_condemned(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    manifest = write_manifest(tmp_path / "a", [f"gone{i}.mp4" for i in range(40)])
    with pytest.raises(CircuitOpenError, match="could not be reached"):
        run(manifest, tmp_path / "out")


def test_nan_logits_stop_with_a_clear_error(archive: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import torch\n"
        "class Bad(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        y = (x > 0.98).float().mean(dim=(1, 2, 3, 4))[:, None].repeat(1, 4)\n"
        "        return torch.where(y > 0.2, torch.full_like(y, float('nan')), y)\n"
        "def build():\n"
        "    return Bad()\n"
    )
    with pytest.raises(ModelError, match=r"finite.* s of .*v0\d\.mp4"):
        run(archive, tmp_path / "out", tiny_spec(teacher=ModelRef(factory=f"{bad}:build")))


def test_two_copies_in_two_splits_are_an_error(archive: Path, tmp_path: Path) -> None:
    folder = archive.parent / "videos"
    shutil.copy(folder / "v00.mp4", folder / "v06.mp4")
    names = [f"videos/v{i:02d}.mp4" for i in (0, 1, 6)]
    manifest = write_manifest(archive.parent, names)  # rows 0 and 2 are 'test', so move one
    manifest.write_text(manifest.read_text().replace("v06.mp4,sit,test", "v06.mp4,walk,train"))
    with pytest.raises(ManifestError, match="split"):
        run(manifest, tmp_path / "out")


def test_a_group_may_not_come_to_span_two_splits(archive: Path, tmp_path: Path) -> None:
    first, second, moved = (archive.parent / n for n in ("one.csv", "two.csv", "three.csv"))
    head = "uri,split,group\n"
    first.write_text(head + "videos/v00.mp4,test,scene\nvideos/v01.mp4,train,other\n")
    second.write_text(head + "videos/v02.mp4,train,scene\n")
    moved.write_text(head + "videos/v00.mp4,train,scene\nvideos/v02.mp4,train,scene\n")
    run(first, tmp_path / "out")
    with pytest.raises(ManifestError, match=r"group 'scene'.*v0[02].*v0[02]"):
        run(second, tmp_path / "out")
    report = run(moved, tmp_path / "out")
    assert report.complete and report.counts.videos == 3
    assert set(read(report.store, ["split"])["split"].to_pylist()) == {"train"}


def test_limit_takes_a_stratified_sample_and_can_grow(archive: Path, tmp_path: Path) -> None:
    first = run(archive, tmp_path / "out", limit=3)
    assert first.counts.videos == 3
    again = run(archive, tmp_path / "out", limit=3)
    assert again.summary.rows == 0
    rest = run(archive, tmp_path / "out")
    assert rest.counts.videos == 6 and rest.counts.complete
    assert set(keys(first)) < set(keys(rest)) or first.store.url == rest.store.url


def test_segments_of_one_file_are_videos_of_their_own(archive: Path, tmp_path: Path) -> None:
    manifest = archive.parent / "segments.csv"
    manifest.write_text(
        "uri,label,start,end\nvideos/v05.mp4,walk,0,1\nvideos/v05.mp4,run,1.5,2.5\nvideos/v05.mp4,sit,9,10\n"
    )
    report = run(manifest, tmp_path / "out")
    rows = read(report.store, ["start_us", "end_us", "label"])
    by_label = {label: rows.filter(pc.equal(rows["label"], label)) for label in ("walk", "run")}
    assert by_label["walk"]["start_us"].to_pylist() == [0, 500_000]
    assert by_label["run"]["start_us"].to_pylist() == [1_500_000, 2_000_000]
    ((_, failure),) = failures(report.store)
    assert failure.error == "SegmentError" and "9.0 s" in failure.message
