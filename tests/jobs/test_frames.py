"""Keeping frames: the same clips as the targets', resumable, following what is added, removed and damaged."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli import run as locum
from jobs.frames import FramesReport, keep_frames, most_bytes
from jobs.prune import prune
from jobs.teach import TeachOptions, TeachReport, teach
from pipeline.runner import RunSettings
from pipeline.sheets import decode_sheet
from pipeline.store.mend import retry
from pipeline.store.read import failures, read
from pipeline.store.verify import verify
from pipeline.video.pyav import PyAVDecoder
from schemas.clip import clip_spans
from schemas.errors import SettingsError
from schemas.frames import FrameSpec, KeepSpec
from schemas.targets import DecodeSpec, ViewSpec
from tests.tiny import make_archive, make_video, tiny_spec, write_manifest

KEEP = KeepSpec(num_frames=4, width=24, height=16, quality=95)
OPTIONS = TeachOptions(batch_size=4, shard_clips=6, num_threads=1)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive")


def taught(source: Path, tmp_path: Path) -> TeachReport:
    return teach(str(source), str(tmp_path / "out"), tiny_spec(), OPTIONS)


def kept(report: TeachReport, keep: KeepSpec = KEEP) -> FramesReport:
    return keep_frames(report.store.url, keep=keep)


def keys(report: TeachReport | FramesReport) -> list[tuple[str, int, int]]:
    table = read(report.store, ["video_id", "start_us", "end_us"])
    return sorted(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def test_each_clip_of_the_targets_has_its_frames(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    frames = kept(targets)
    assert frames.complete and verify(frames.store).clean
    assert keys(frames) == keys(targets) and len(keys(frames)) > 10
    row = read(frames.store, ["video_id", "start_us", "sheet", "uri"]).slice(4, 1).to_pylist()[0]
    spec = tiny_spec().clip.model_copy(update={"num_frames": KEEP.num_frames})
    spans = [s for s in clip_spans(0, 3_000_000, spec) if s.start_us == row["start_us"]]
    view = ViewSpec(width=KEEP.width, height=KEEP.height)
    (clip,) = PyAVDecoder().decode(row["uri"], spans, view, DecodeSpec())
    error = np.abs(decode_sheet(row["sheet"], KEEP.num_frames).astype(int) - clip.frames_VTHWC[0])
    assert error.mean() < 3


def test_running_again_does_nothing_and_more_videos_are_added(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    first = kept(targets)
    again = kept(targets)
    assert again.summary.shards == 0 and again.added.is_empty and keys(again) == keys(first)
    make_video(archive.parent / "videos" / "v90.mp4", 9000, 50)
    names = [f"videos/{p.name}" for p in sorted((archive.parent / "videos").iterdir())]
    more = taught(write_manifest(archive.parent, names), tmp_path)
    added = kept(more)
    assert added.added.new_videos == 1 and keys(added) == keys(more) and verify(added.store).clean


def test_other_frames_are_another_store(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    urls = {
        kept(targets, KEEP.model_copy(update=change)).store.url
        for change in ({}, {"quality": 50}, {"width": 32})
    }
    assert len(urls) == 3


def test_a_run_that_was_cut_short_goes_on(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    from jobs.frames import FramesOptions

    cut = keep_frames(targets.store.url, None, KEEP, FramesOptions(settings=RunSettings(max_seconds=0)))
    assert not cut.complete and cut.counts.rows == 0
    done = kept(targets)
    assert done.complete and keys(done) == keys(targets)


def test_removals_are_taken_over(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    kept(targets)
    gone = read(targets.store, ["video_id", "uri"]).slice(0, 1).to_pylist()[0]
    prune(targets.store.url, videos=[gone["video_id"]])
    after = kept(targets)
    assert after.removed_videos == 1 and verify(after.store).clean
    assert keys(after) == keys(targets)
    assert gone["video_id"] not in {k[0] for k in keys(after)}


def test_a_video_that_moved_is_found(archive: Path, tmp_path: Path) -> None:
    taught(archive, tmp_path)
    videos = archive.parent / "videos"
    (videos / "v01.mp4").rename(videos / "elsewhere.mp4")
    names = [f"videos/{p.name}" for p in sorted(videos.iterdir())]
    moved = taught(write_manifest(archive.parent, names), tmp_path)
    frames = kept(moved)
    assert frames.complete and not failures(frames.store) and keys(frames) == keys(moved)


def test_a_damaged_file_is_quarantined_in_both(archive: Path, tmp_path: Path) -> None:
    bad = archive.parent / "videos" / "v02.mp4"
    bad.write_bytes(b"no video at all")
    targets = taught(archive, tmp_path)
    frames = kept(targets)
    assert frames.complete and keys(frames) == keys(targets)
    assert [f.uri for _, f in failures(frames.store)] == [str(bad)]


def test_a_file_that_went_away_can_be_retried(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    away = archive.parent / "videos" / "v03.mp4"
    hidden = away.with_suffix(".away")
    away.rename(hidden)
    from jobs.frames import FramesOptions
    from pipeline.breaker import BreakerSettings

    lenient = FramesOptions(max_attempts=1, settings=RunSettings(None, BreakerSettings(0.5, 1.0)))
    short = keep_frames(targets.store.url, None, KEEP, lenient)
    assert [f.permanent for _, f in failures(short.store)] == [False]
    hidden.rename(away)
    assert retry(short.store).reopened == 1
    assert keys(kept(targets)) == keys(targets)


def test_a_video_too_long_for_a_file_is_named_and_the_rest_kept(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = taught(archive, tmp_path)
    each = Counter(read(targets.store, ["uri"])["uri"].to_pylist())
    longest = max(each.values())
    long_ones = sorted(uri for uri, clips in each.items() if clips == longest)
    clip_bytes = most_bytes(FrameSpec.of(tiny_spec(), KEEP))
    monkeypatch.setattr("jobs.frames._VIDEO_BYTES", (longest - 1) * clip_bytes)
    frames = kept(targets)
    found = [failure for _, failure in failures(frames.store)]
    assert sorted(f.uri for f in found) == long_ones and frames.complete
    assert all(f.error == "TooLong" and f"{longest} clips" in f.message for f in found)
    assert len(keys(frames)) == len(keys(targets)) - longest * len(long_ones)


def test_row_groups_hold_whole_videos(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from pipeline.store import kinds

    monkeypatch.setitem(kinds.KINDS, "frames", replace(kinds.FRAMES, group_rows=3))
    frames = kept(taught(archive, tmp_path))
    groups = []
    for path in sorted(Path(frames.store.url, "data").iterdir()):
        file = pq.ParquetFile(path)
        groups += [
            file.read_row_group(i, ["video_id"])["video_id"].to_pylist() for i in range(file.num_row_groups)
        ]
    assert len(groups) > 3
    for group, following in pairwise(groups):
        assert group[-1] != following[0]


def test_only_target_stores_have_clips_to_keep(archive: Path, tmp_path: Path) -> None:
    targets = taught(archive, tmp_path)
    with pytest.raises(SettingsError, match="videos: one of targets"):
        keep_frames(targets.index.store.url)


def test_the_command_says_what_it_kept(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = taught(archive, tmp_path)
    flags = ["--num-frames", "4", "--width", "24", "--height", "16", "--local", "-q"]
    assert locum(["frames", targets.store.url, *flags]) == 0
    said = capsys.readouterr().out
    assert f"{targets.counts.rows} kept" in said and "kB a clip" in said
    assert Path(said.splitlines()[-1], "spec.json").exists()
    assert locum(["frames", str(tmp_path / "nothing"), *flags]) == 4
    assert locum(["frames", targets.store.url, "--num-frames", "1024", "--height", "1024", "--local"]) == 2
