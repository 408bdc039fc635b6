"""``teach --keep-frames``: targets and frames of one decoding, the same rows as in two runs, whatever comes between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.cli import run as locum
from jobs.frames import beside, keep_frames
from jobs.prune import prune
from jobs.teach import TeachOptions, TeachReport, open_targets, teach
from pipeline.local_runner import LocalRunner
from pipeline.models.resolve import resolve_targets
from pipeline.sheets import decode_sheet
from pipeline.store.paired import PairedStore
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore, Stamp
from pipeline.store.verify import verify
from pipeline.tasks.task import Task
from pipeline.video.frame_source import LocalFrameSource
from schemas.frames import KeepSpec
from schemas.shard import Shard, ShardResult
from schemas.targets import LogitsSpec
from tests.tiny import TINY_FLAGS, make_archive, make_video, tiny_spec, write_manifest

KEEP = KeepSpec(num_frames=3, width=24, height=16)
PLAIN = TeachOptions(batch_size=4, shard_clips=6, num_threads=1)
OPTIONS = replace(PLAIN, keep=KEEP)
TIMINGS = ("decode_ms", "teacher_ms")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive")


def both(source: Path, out: Path, options: TeachOptions = OPTIONS) -> TeachReport:
    return teach(str(source), str(out), tiny_spec(), options)


def frames_of(report: TeachReport) -> ShardStore:
    assert report.frames is not None
    return report.frames.store


def rows(store: ShardStore) -> pa.Table:
    table = read(store).sort_by([("video_id", "ascending"), ("start_us", "ascending")])
    return table.drop_columns([n for n in TIMINGS if n in table.column_names])


def as_in_two_runs(report: TeachReport, source: Path, out: Path) -> None:
    """The targets and the kept frames are, bit for bit, what a run for each of them gives."""
    alone = both(source, out, PLAIN)
    kept = keep_frames(alone.store.url, keep=KEEP)
    assert rows(report.store).equals(rows(alone.store))
    assert rows(frames_of(report)).equals(rows(kept.store))
    assert rows(kept.store).num_rows == rows(alone.store).num_rows > 10
    assert verify(report.store).clean and verify(frames_of(report)).clean


class Counted(LocalRunner):
    """Counts the clips that each task was run over."""

    def __init__(self) -> None:
        super().__init__(LocalFrameSource)
        self.clips: list[tuple[str, int]] = []

    def run(self, task: Task, store: ShardStore, *args: object, **kwargs: object):  # type: ignore[no-untyped-def,override]
        summary = super().run(task, store, *args, **kwargs)  # type: ignore[arg-type]
        self.clips.append((type(task).__name__, summary.rows))
        return summary


def test_one_decoding_gives_what_two_give(archive: Path, tmp_path: Path) -> None:
    runner = Counted()
    report = teach(str(archive), str(tmp_path / "one"), tiny_spec(), OPTIONS, runner=runner)
    assert report.complete
    assert runner.clips[1:] == [("TeachTask", report.counts.rows), ("KeepFramesTask", 0)]
    as_in_two_runs(report, archive, tmp_path / "two")


def test_more_videos_damage_and_removals(archive: Path, tmp_path: Path) -> None:
    (archive.parent / "videos" / "v02.mp4").write_bytes(b"no video at all")
    out = tmp_path / "out"
    first = both(archive, out)
    assert [f.uri for _, f in failures(frames_of(first))] == [f.uri for _, f in failures(first.store)]
    gone = read(first.store, ["video_id"])["video_id"][0].as_py()
    prune(first.store.url, videos=[gone])
    make_video(archive.parent / "videos" / "v90.mp4", 9000, 50)
    names = [f"videos/{p.name}" for p in sorted((archive.parent / "videos").iterdir())]
    again = both(write_manifest(archive.parent, names), out)
    assert again.frames is not None and again.frames.removed_videos == 0  # `beside` took it over
    assert gone not in rows(frames_of(again))["video_id"].to_pylist()
    keys = ["video_id", "start_us", "end_us"]
    assert rows(frames_of(again)).select(keys).equals(rows(again.store).select(keys))
    assert verify(frames_of(again)).clean and again.complete


def test_targets_that_were_there_before(archive: Path, tmp_path: Path) -> None:
    """Nothing is pending in the targets: the frames are kept by a pass of their own."""
    out = tmp_path / "out"
    both(archive, out, PLAIN)
    report = both(archive, out)
    assert report.summary.shards == 0 and report.complete
    as_in_two_runs(report, archive, tmp_path / "two")


def test_frames_that_were_there_before(archive: Path, tmp_path: Path) -> None:
    """The frame store knows some of the videos: what it has is not planned again."""
    out = tmp_path / "out"
    both(archive, out)
    other = teach(str(archive), str(out), tiny_spec(logits=LogitsSpec(dtype="float32")), OPTIONS)
    assert other.summary.rows and other.complete
    assert other.frames is not None and other.frames.added.is_empty
    assert len(frames_of(other).generations()) == 1


@pytest.mark.parametrize("which", ["second", "first"])
def test_cut_between_the_two_commits(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A crash before either file of a shard is written; the next run does what is left, and doubles nothing."""

    class Crash(BaseException):
        pass

    calls = 0
    plain = ShardStore.commit

    def commit(self: ShardStore, shard: Shard, result: ShardResult, stamp: Stamp | None = None) -> bool:
        nonlocal calls
        if (self.kind.name == "frames") == (which == "second"):
            calls += 1
            if calls == 2:
                raise Crash
        return plain(self, shard, result, stamp)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "commit", commit)
        with pytest.raises(Crash):
            both(archive, tmp_path / "out")
    report = both(archive, tmp_path / "out")
    assert report.complete
    as_in_two_runs(report, archive, tmp_path / "two")


def test_a_video_that_is_removed_while_the_run_goes_on(archive: Path, tmp_path: Path) -> None:
    """It is left out of the targets at once, and of the frames by the next look."""
    out, spec = str(tmp_path / "out"), resolve_targets(tiny_spec())
    both(archive, tmp_path / "out", replace(PLAIN, limit=1))  # the index, and one video
    from jobs.index import catalog, index
    from jobs.planning import add_videos

    indexed = index(str(archive), out)
    store = open_targets(out, "targets", spec)
    add_videos(store, catalog(indexed.store, indexed.entries), spec.clip, notes={}, shard_clips=6)
    pair = beside(store, KEEP)
    assert isinstance(pair, PairedStore)
    gone = store.plan(2).shard(next(iter(store.plan(2).shard_keys()))).videos[0].video_id
    prune(store.url, videos=[gone])
    summary = LocalRunner(LocalFrameSource).run(OPTIONS.task(spec), pair)
    assert summary.shards and not summary.failed_shards
    report = both(archive, tmp_path / "out")
    assert report.complete and gone not in rows(frames_of(report))["video_id"].to_pylist()
    keys = ["video_id", "start_us"]
    assert rows(frames_of(report)).select(keys).equals(rows(report.store).select(keys))
    assert verify(frames_of(report)).clean


def test_frames_of_another_decoding_are_kept_by_another_pass(archive: Path, tmp_path: Path) -> None:
    """Keyframes alone: here they are twelve frames apart, so most kept frames of a clip are the same."""
    runner, keep = Counted(), KEEP.model_copy(update={"key_frames": True})
    options = replace(OPTIONS, keep=keep)
    report = teach(str(archive), str(tmp_path / "out"), tiny_spec(), options, runner=runner)
    taught = report.counts.rows
    assert runner.clips[1:] == [("TeachTask", taught), ("KeepFramesTask", taught)] and report.complete
    sheets = [
        decode_sheet(s, KEEP.num_frames) for s in read(frames_of(report), ["sheet"])["sheet"].to_pylist()
    ]
    held = sum(bool((np.abs(s[0].astype(int) - s[1]) < 24).all()) for s in sheets)
    assert held > len(sheets) / 3
    assert frames_of(report).url != frames_of(both(archive, tmp_path / "all")).url


def test_the_command(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["teach", str(archive), "-o", str(tmp_path / "out"), *TINY_FLAGS, "--batch-size", "4", "-q"]
    assert locum([*command, "--keep-frames", "--dry-run", "--json"]) == 0
    guess = json.loads(capsys.readouterr().out)
    assert guess["frames_bytes"] > 100 * guess["clips"]
    assert locum([*command, "--keep-frames"]) == 0
    said = capsys.readouterr().out
    assert "clips kept" in said and Path(said.splitlines()[-1], "spec.json").exists()
    assert locum([*command, "--keep.width", "24", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["frames"]["rows"] == body["rows"] and body["frames"]["complete"]
    assert ShardStore.open(body["frames"]["store"]).document.spec["view"]["width"] == 24
