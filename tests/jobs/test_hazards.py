"""What the world does to a long run: files that change under it, storage that goes away, tasks that fail."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.index import catalog, index
from jobs.planning import add_videos
from jobs.prune import prune
from jobs.teach import TeachOptions, TeachReport, open_targets, teach
from pipeline.breaker import BreakerSettings
from pipeline.frames import FrameSource, NoFrames
from pipeline.local_runner import LocalRunner
from pipeline.models.resolve import resolve_targets
from pipeline.runner import RunSettings
from pipeline.store.mend import retry
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from pipeline.video.frame_source import LocalFrameSource
from pipeline.video.pyav import PyAVDecoder
from schemas.errors import CircuitOpenError, SettingsError
from schemas.shard import Failure, Shard, ShardResult
from schemas.targets import TargetSpec
from tests.tiny import make_archive, make_video, tiny_spec

OPTIONS = TeachOptions(batch_size=4, shard_clips=6, num_threads=1, max_attempts=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive").parent / "videos"


def run(source: Path, out: Path) -> TeachReport:
    return teach(str(source), str(out), tiny_spec(), OPTIONS)


def planned(source: Path, out: Path, shard_clips: int = 6) -> tuple[ShardStore, TargetSpec]:
    """A store that is planned and not run."""
    spec = resolve_targets(tiny_spec())
    indexed = index(str(source), str(out))
    store = open_targets(str(out), "targets", spec)
    add_videos(store, catalog(indexed.store, indexed.entries), spec.clip, notes={}, shard_clips=shard_clips)
    return store, spec


def local_runner() -> LocalRunner:
    return LocalRunner(lambda: LocalFrameSource(PyAVDecoder(), max_attempts=2))


def test_a_file_changed_after_the_index_is_not_taken_for_the_old_one(folder: Path, tmp_path: Path) -> None:
    store, spec = planned(folder, tmp_path / "out")
    make_video(folder / "v00.mp4", 9000)
    local_runner().run(OPTIONS.task(spec), store)
    (_, failure), *others = failures(store)
    assert not others and failure.error == "ChangedFile" and not failure.permanent
    report = run(folder, tmp_path / "out")
    assert report.complete and not failures(report.store)
    assert {Path(u).name for u in read(report.store, ["uri"])["uri"].to_pylist()} == {
        f"v0{i}.mp4" for i in range(6)
    }
    assert verify(report.store).clean


def test_a_changed_file_is_looked_for_under_its_other_name(folder: Path, tmp_path: Path) -> None:
    whole = run(folder, tmp_path / "whole")
    shutil.copy(folder / "v00.mp4", folder / "zcopy.mp4")
    store, spec = planned(folder, tmp_path / "out")
    make_video(folder / "v00.mp4", 9000)
    local_runner().run(OPTIONS.task(spec), store)
    assert not failures(store)
    columns = ["video_id", "start_us", "logits"]
    order = [("video_id", "ascending"), ("start_us", "ascending")]
    assert read(store, columns).sort_by(order).equals(read(whole.store, columns).sort_by(order))


def test_a_touched_file_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    store, spec = planned(folder, tmp_path / "out")
    for path in folder.iterdir():
        path.touch()
    local_runner().run(OPTIONS.task(spec), store)
    assert not failures(store) and verify(store).counts.complete


def test_a_video_that_was_superseded_and_comes_back_is_computed(folder: Path, tmp_path: Path) -> None:
    store, spec = planned(folder, tmp_path / "out", shard_clips=100)
    kept = (folder / "v00.mp4").read_bytes()
    make_video(folder / "v00.mp4", 9000)
    add_videos(store, _look(folder, tmp_path / "out"), spec.clip, notes={}, shard_clips=100)
    local_runner().run(OPTIONS.task(spec), store)
    (folder / "v00.mp4").write_bytes(kept)
    report = run(folder, tmp_path / "out")
    assert report.complete and not failures(report.store) and verify(report.store).clean
    here = read(report.store, ["uri", "video_id"])
    assert len(set(here["video_id"].to_pylist())) == 6
    assert {Path(u).name for u in here["uri"].to_pylist()} == {f"v0{i}.mp4" for i in range(6)}


def _look(source: Path, out: Path) -> pa.Table:
    indexed = index(str(source), str(out))
    return catalog(indexed.store, indexed.entries)


def test_retrying_keeps_the_clips_that_were_planned(folder: Path, tmp_path: Path) -> None:
    store, spec = planned(folder, tmp_path / "out")
    hidden = tmp_path / "v02.mp4"
    (folder / "v02.mp4").rename(hidden)
    local_runner().run(OPTIONS.task(spec), store)
    hidden.rename(folder / "elsewhere.mp4")  # the next look amends the video, and its row then has no work
    videos = _look(folder, tmp_path / "out")
    at = videos.schema.get_field_index("duration_us")
    longer = videos.set_column(at, videos.schema.field(at), pc.add(videos["duration_us"], 5_000_000))
    add_videos(store, longer, spec.clip, notes={}, shard_clips=6)
    assert retry(store).reopened == 1
    local_runner().run(OPTIONS.task(spec), store)
    assert verify(store).clean and verify(store).counts.complete and not failures(store)


def test_prune_by_uri_means_what_is_there_now(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    (folder / "v00.mp4").rename(folder / "moved.mp4")
    make_video(folder / "v00.mp4", 9000)
    report = run(folder, tmp_path / "out")
    assert prune(report.store.url, uris=[str(folder / "v00.mp4")])["removed_videos"] == 1
    left = {Path(u).name for u in read(report.store, ["uri"])["uri"].to_pylist()}
    assert "moved.mp4" in left and "v00.mp4" not in left
    with pytest.raises(SettingsError, match="never-there"):
        prune(report.store.url, uris=[str(folder / "never-there.mp4")])


@dataclass(frozen=True)
class Unreachable:
    """A task to which the videos whose name holds ``word`` are away."""

    word: str = ""

    @property
    def request(self) -> None:
        return None

    def start(self) -> Unreachable:
        return self

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        away = [v for v in shard.videos if self.word in v.uri]
        lost = tuple(Failure(v.video_id, v.uri, "open", "Away", "", False, 1, v.num_clips) for v in away)
        rows = [(v.video_id, i) for v in shard.videos if v not in away for i in range(v.num_clips)]
        columns = {"video_id": [r[0] for r in rows], "start_us": pa.array([r[1] for r in rows], pa.int64())}
        return ShardResult(pa.table(columns), lost)

    def close(self) -> None:
        """Nothing is held."""


def test_runs_that_are_started_again_condemn_nobody(folder: Path, tmp_path: Path) -> None:
    store, _ = planned(folder, tmp_path / "out", shard_clips=1)
    settings = RunSettings(breaker=BreakerSettings(max_transient_share=0.5, min_failures=4))
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            LocalRunner(NoFrames).run(Unreachable(), store, settings)
        assert not store.committed()
    LocalRunner(NoFrames).run(Unreachable("v03"), store, settings)
    assert len(failures(store)) == 1 and not store.pending()


@dataclass(frozen=True)
class Broken:
    """A task that fails at the shards of the given numbers."""

    numbers: frozenset[int]

    @property
    def request(self) -> None:
        return None

    def start(self) -> Broken:
        return self

    def run(self, shard: Shard, frames: FrameSource) -> ShardResult:
        if shard.key.number in self.numbers:
            raise RuntimeError(f"cannot do {shard.key}")
        return Unreachable("no such word").run(shard, frames)

    def close(self) -> None:
        """Nothing is held."""


def test_a_failing_shard_stays_pending_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    store, _ = planned(folder, tmp_path / "out", shard_clips=1)
    summary = LocalRunner(NoFrames).run(Broken(frozenset({1, 4})), store)
    assert {k.number for k in summary.failed_shards} == {1, 4} == {k.number for k in store.pending()}


def test_a_task_that_always_fails_stops_soon(folder: Path, tmp_path: Path) -> None:
    store, _ = planned(folder, tmp_path / "out", shard_clips=1)
    with pytest.raises(RuntimeError, match="cannot do g0001-000002"):
        LocalRunner(NoFrames).run(Broken(frozenset(range(6))), store)


def test_a_decoder_that_stumbles_over_one_video_loses_that_video(folder: Path, tmp_path: Path) -> None:
    class Stumbling(PyAVDecoder):
        def decode(self, uri, *rest):  # type: ignore[no-untyped-def]
            if "v02" in uri:
                raise RuntimeError("no idea")
            return super().decode(uri, *rest)

    store, spec = planned(folder, tmp_path / "out")
    LocalRunner(lambda: LocalFrameSource(Stumbling(), max_attempts=1)).run(OPTIONS.task(spec), store)
    ((_, failure),) = failures(store)
    assert (
        failure.error == "RuntimeError" and "no idea" in failure.message and failure.uri.endswith("v02.mp4")
    )
    assert not store.pending() and verify(store).clean
