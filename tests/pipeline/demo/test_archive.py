"""The archive: balanced, its groups within one split, resumable to the byte, decodable as planned."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import av
import psutil
import pytest

from pipeline.demo.archive import (
    DEMO_SEED,
    TEACHER_SEED,
    ArchiveSettings,
    plan_archive,
    render_archive,
    video_path,
)
from pipeline.demo.encode import available_families, encode
from pipeline.demo.motion import CLASSES
from pipeline.demo.plan import plan_video
from schemas.errors import SettingsError

SHORT = ArchiveSettings(seed=5, min_seconds=1.5, max_seconds=2.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    render_archive(root, 9, SHORT)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_groups_never_span_splits_and_classes_are_balanced() -> None:
    plans = list(islice(plan_archive(ArchiveSettings(seed=2)), 600))
    splits = defaultdict(set)
    for p in plans:
        splits[p.group].add(p.split)
    assert all(len(s) == 1 for s in splits.values())
    assert Counter(Counter(p.group for p in plans).values()) == {3: 200}
    for split, share in (("train", 240), ("calibration", 180), ("test", 180)):
        counts = Counter(p.label for p in plans if p.split == split)
        assert sum(counts.values()) == share
        assert set(counts) == set(CLASSES) and max(counts.values()) - min(counts.values()) <= 1


def test_a_longer_archive_begins_with_the_shorter_one() -> None:
    assert list(islice(plan_archive(SHORT), 7)) == list(islice(plan_archive(SHORT), 40))[:7]


def test_names_are_unique_and_archives_of_two_seeds_share_no_scene() -> None:
    demo = list(islice(plan_archive(ArchiveSettings(seed=DEMO_SEED)), 300))
    teacher = list(islice(plan_archive(ArchiveSettings(seed=TEACHER_SEED)), 300))
    assert len({p.name for p in demo}) == 300
    assert not {p.scene for p in demo} & {p.scene for p in teacher}
    assert not {p.group for p in demo} & {p.group for p in teacher}
    assert not any(word in p.name for p in demo for word in CLASSES)


def test_the_manifest_says_what_was_planned(archive: Path) -> None:
    with (archive / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    plans = list(islice(plan_archive(SHORT), 9))
    assert [(r["label"], r["split"], r["group"]) for r in rows] == [
        (p.label, p.split, p.group) for p in plans
    ]
    assert all((archive / r["uri"]).is_file() for r in rows)
    assert json.loads((archive / "archive.json").read_text())["synthetic"] is True


def test_every_file_decodes_to_the_planned_frames(archive: Path) -> None:
    for plan in islice(plan_archive(SHORT), 9):
        with av.open(str(video_path(archive, plan))) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == len(plan.times_us())
        assert (frames[0].width, frames[0].height) == (plan.encoding.width, plan.encoding.height)


@pytest.mark.parametrize("family", available_families(), ids=lambda f: f.name)
@pytest.mark.parametrize("audio", [False, True])
def test_every_family_keeps_frames_and_times(family, audio: bool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plans = (
        plan_video(8, i, label="recede", split="test", group_index=0, seconds=(1.5, 1.6), families=(family,))
        for i in range(400)
    )
    plan = next(p for p in plans if p.encoding.has_audio == audio and p.encoding.width == 320)
    encode(plan, tmp_path / "one")
    encode(plan, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with av.open(str(tmp_path / "one")) as container:
        assert len(container.streams.audio) == audio
        frames = list(container.decode(video=0))
    start = float(frames[0].time)
    times = [round((float(f.time) - start) * 1e6) for f in frames]
    assert times == pytest.approx(plan.times_us().tolist(), abs=1001)
    if audio:
        with av.open(str(tmp_path / "one")) as container:
            samples = sum(f.samples / f.sample_rate for f in container.decode(audio=0))
        assert samples == pytest.approx(plan.encoding.duration_s, abs=0.15)


def test_a_lost_file_is_rendered_again_and_the_others_are_kept(archive: Path) -> None:
    before = contents(archive)
    victim, *others = (video_path(archive, p) for p in islice(plan_archive(SHORT), 9))
    victim.unlink()
    (archive / "manifest.csv").unlink()
    victim.with_name(victim.name + ".part").write_bytes(b"half a file")
    stamps = [p.stat().st_mtime_ns for p in others]
    render_archive(archive, 9, SHORT)
    assert contents(archive) == before
    assert [p.stat().st_mtime_ns for p in others] == stamps


def test_processes_write_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    render_archive(tmp_path, 4, SHORT, workers=2)
    here, there = contents(tmp_path), contents(archive)
    videos = [name for name in here if name.startswith("videos")]
    assert len(videos) == 4 and all(here[name] == there[name] for name in videos)


def test_another_archive_in_the_same_folder_is_refused(archive: Path) -> None:
    with pytest.raises(SettingsError, match="seed: 5 there, 6 asked for"):
        render_archive(archive, 1, ArchiveSettings(seed=6, min_seconds=1.5, max_seconds=2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"min_seconds": 1.0},
        {"max_seconds": 61.0},
        {"videos_per_group": 0},
        {"splits": ()},
        {"splits": (("train", 0),)},
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ArchiveSettings(**change)  # type: ignore[arg-type]


def test_an_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        render_archive(tmp_path, 0)


def test_its_processes_end_with_the_one_that_made_them(tmp_path: Path) -> None:
    """Killed without a chance to clean up, and none is left."""
    code = (
        f"from pipeline.demo.archive import render_archive; render_archive({str(tmp_path)!r}, 400, workers=2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", f"if __name__ == '__main__':\n    {code}"])
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(parent.pid).children()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)  # two that render, and the resource tracker
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) >= 2 and not alive
