"""The index job over real small files: what is probed, what is probed again, and what is said of the rest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.index import IndexReport, add_entries, catalog, entries_of, index, sample_entries
from pipeline import identity
from pipeline.breaker import BreakerSettings
from pipeline.manifest import read_entries
from pipeline.runner import RunSettings
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from schemas.errors import CircuitOpenError, ManifestError, SettingsError
from tests.tiny import make_video


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for i in range(3):
        make_video(folder / f"v{i}.mp4", 100 * i, 25)
    return folder


@pytest.fixture
def archive(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "archive"))


def say(archive: Path, rows: Sequence[tuple[str, str]]) -> str:
    """A manifest of (name, label) beside the archive's videos."""
    path = archive / "m.csv"
    path.write_text("uri,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    return str(path)


def run(source: str | Path, **kwargs: Any) -> IndexReport:
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    report = index(str(source), str(folder.parent / "out"), **kwargs)
    assert verify(report.store).clean
    return report


def videos(report: IndexReport) -> dict[str, dict[str, Any]]:
    """The catalogue by file name of the first URI."""
    return {os.path.basename(v["uris"][0]): v for v in catalog(report.store, report.entries).to_pylist()}


def test_every_video_is_probed_once_and_a_second_run_probes_nothing(archive: Path) -> None:
    first = run(archive)
    assert (first.new_items, first.summary.rows, first.unreadable, first.pending_shards) == (3, 3, 0, 0)
    found = videos(first)
    assert {n: (v["width"], v["height"], v["duration_us"]) for n, v in found.items()} == {
        f"v{i}.mp4": (64, 48, 1_000_000) for i in range(3)
    }
    assert len({v["video_id"] for v in found.values()}) == 3
    second = run(archive)
    assert (second.new_items, second.summary.rows) == (0, 0)
    assert second.store.generations() == [1]
    assert videos(second) == found


def test_a_moved_file_and_a_copy_are_looked_at_and_known_again(archive: Path) -> None:
    before = videos(run(archive))
    (archive / "deep").mkdir()
    (archive / "v0.mp4").rename(archive / "deep" / "w0.mp4")
    shutil.copy(archive / "v1.mp4", archive / "x1.mp4")
    report = run(archive)
    after = videos(report)
    assert report.new_items == 2
    assert after["w0.mp4"]["video_id"] == before["v0.mp4"]["video_id"]
    assert after["v1.mp4"]["uris"] == [str(archive / "v1.mp4"), str(archive / "x1.mp4")]
    assert len(after) == 3


def test_changed_bytes_are_another_video_and_the_old_bytes_back_are_the_old_one(archive: Path) -> None:
    before = videos(run(archive))
    kept = shutil.copy2(archive / "v0.mp4", archive.parent / "kept")
    make_video(archive / "v0.mp4", 999, 30)
    changed = run(archive)
    assert changed.new_items == 1
    assert videos(changed)["v0.mp4"]["video_id"] != before["v0.mp4"]["video_id"]
    shutil.copy2(kept, archive / "v0.mp4")
    back = run(archive)
    assert back.new_items == 0
    assert videos(back) == before
    every = catalog(back.store, entries_of(back.store)).to_pylist()
    assert {os.path.basename(v["uris"][0]): v for v in every} == before


def test_a_corrected_label_costs_no_probe_and_correcting_it_back_is_heard(archive: Path) -> None:
    for label in ("walk", "run", "walk", "sit"):
        report = run(say(archive, [("v0.mp4", label), ("v1.mp4", "stand")]))
        assert videos(report)["v0.mp4"]["label"] == label
        assert catalog(report.store, entries_of(report.store)).num_rows == 2
        newest = {r["uri"][-6:]: r["label"] for r in entries_of(report.store).to_pylist()}
        assert newest == {"v0.mp4": label, "v1.mp4": "stand"}
    assert report.store.generations() == [1, 2, 3, 4]
    assert read(report.store, ["item_id"]).num_rows == 2


def test_rows_of_one_path_that_differ_do_not_grow_the_index_with_every_run(archive: Path) -> None:
    source = say(archive, [("v0.mp4", "walk"), ("v0.mp4", "run"), ("v0.mp4", "run")])
    for _ in range(3):
        report = run(source)
    assert report.store.generations() == [1]
    with pytest.raises(ManifestError, match="two labels"):
        catalog(report.store, report.entries)


def test_what_is_no_video_or_not_there_is_listed_and_the_rest_is_indexed(archive: Path) -> None:
    (archive / "empty.mp4").touch()
    (archive / "text.mp4").write_text("this is not a video\n" * 100)
    rows = [(n, "x") for n in ("v0.mp4", "empty.mp4", "gone.mp4", "text.mp4", "v1.mp4")]
    report = run(say(archive, rows))
    assert (report.summary.rows, report.unreadable) == (2, 3)
    listed = {os.path.basename(f.uri): f.permanent for _, f in failures(report.store)}
    assert listed == {"empty.mp4": True, "text.mp4": True, "gone.mp4": False}
    found = videos(report)
    assert {n for n, v in found.items() if v["unreadable"]} == listed.keys()
    assert len(found) == 5
    again = run(say(archive, rows))
    assert (again.new_items, again.unreadable) == (0, 3)
    make_video(archive / "gone.mp4", 7, 25)
    back = run(say(archive, rows))
    assert back.new_items == 1
    assert videos(back)["gone.mp4"]["unreadable"] is None


def test_an_archive_that_is_away_opens_the_circuit(archive: Path) -> None:
    source = say(archive, [(f"gone{i}.mp4", "") for i in range(30)])
    with pytest.raises(CircuitOpenError, match=r"gone\d+\.mp4.*FileNotFoundError"):
        run(source)
    report = run(source, settings=RunSettings(breaker=BreakerSettings(max_transient_share=1.0)))
    assert report.unreadable == 30


def test_segments_share_one_probe(archive: Path) -> None:
    path = archive / "m.csv"
    path.write_text("uri,start,end\nv0.mp4,0,0.4\nv0.mp4,0.4,\nv0.mp4,5,6\n")
    report = run(str(path))
    assert report.new_items == 1
    found = catalog(report.store, report.entries).to_pylist()
    assert [json.loads(v["unreadable"])["error"] if v["unreadable"] else None for v in found] == [
        None,
        None,
        "SegmentError",
    ]
    assert run(str(path)).store.generations() == [1]


def test_an_index_is_a_source_itself(archive: Path) -> None:
    first = run(archive)
    again = index(first.store.url, str(archive.parent / "elsewhere"))
    assert again.store.url == first.store.url
    assert videos(again) == videos(first)
    assert index(first.store.url, "unused", limit=2).entries.num_rows == 2


def test_a_store_of_another_kind_is_no_source(tmp_path: Path) -> None:
    from pipeline.store.kinds import TARGETS

    store = ShardStore.create(str(tmp_path), kind=TARGETS, name="t", fingerprint="f" * 32, spec={})
    with pytest.raises(SettingsError, match="targets; a source of videos is wanted"):
        index(store.url, str(tmp_path))


def test_a_run_that_is_out_of_time_is_finished_by_the_next(archive: Path) -> None:
    source = say(archive, [*((f"gone{i}.mp4", "") for i in range(70)), ("v0.mp4", "")])
    everything = BreakerSettings(max_transient_share=1.0)
    first = run(source, settings=RunSettings(max_seconds=0.0, breaker=everything))
    assert first.summary.out_of_time
    assert (first.new_items, len(videos(first))) == (71, 0) and first.pending_shards > 4
    second = run(source, settings=RunSettings(breaker=everything))
    assert (second.new_items, second.pending_shards, len(videos(second))) == (0, 0, 71)


def test_a_sample_is_the_same_each_time_and_grows_by_adding(archive: Path) -> None:
    source = say(archive, [(f"v{i}.mp4", "abc"[i % 3]) for i in range(30)])
    entries = read_entries(source)
    few, more = (set(sample_entries(entries, n)["uri"].to_pylist()) for n in (6, 12))
    assert (len(few), len(more)) == (6, 12)
    assert few <= more
    labels = sample_entries(entries, 6)["label"].to_pylist()
    assert sorted(labels) == sorted("aabbcc")
    assert sample_entries(entries, 100).num_rows == 30


# ------------------------------------------------------------------------- large files, sampled ids


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as large: four samples of 64 bytes name it."""
    monkeypatch.setattr(identity, "FULL_BYTES", 100)
    monkeypatch.setattr(identity, "_SAMPLES", 4)
    monkeypatch.setattr(identity, "_SAMPLE_BYTES", 64)


def damage(path: Path) -> None:
    """Flip one bit between the samples, in the picture data."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def hashed(report: IndexReport) -> int:
    return read(report.store, ["id_method"])["id_method"].to_pylist().count("full")


def test_a_damaged_copy_of_a_large_file_does_not_pass_for_its_original(archive: Path, large: None) -> None:
    before = videos(run(archive))
    assert hashed(run(archive)) == 0
    shutil.copy(archive / "v0.mp4", archive / "y0.mp4")
    shutil.copy(archive / "v0.mp4", archive / "z0.mp4")
    damage(archive / "y0.mp4")
    assert identity.file_id(str(archive / "y0.mp4")) == identity.file_id(str(archive / "v0.mp4"))
    report = run(archive)
    after = videos(report)
    assert after["v0.mp4"]["video_id"] == before["v0.mp4"]["video_id"]
    assert after["v0.mp4"]["uris"] == [str(archive / "v0.mp4"), str(archive / "z0.mp4")]
    assert after["y0.mp4"]["video_id"] not in {v["video_id"] for v in before.values()}
    assert hashed(report) == 3
    again = run(archive)
    assert (videos(again), hashed(again), again.summary.rows) == (after, 3, 0)
    (archive / "v0.mp4").unlink()
    moved = videos(run(archive))
    assert moved["z0.mp4"]["video_id"] == before["v0.mp4"]["video_id"]
    assert moved["y0.mp4"]["video_id"] == after["y0.mp4"]["video_id"]


def test_a_large_file_that_moved_is_not_read_again_and_keeps_its_id(archive: Path, large: None) -> None:
    before = videos(run(archive))
    for i in range(3):
        (archive / f"v{i}.mp4").rename(archive / f"w{i}.mp4")
    report = run(archive)
    after = videos(report)
    assert [after[f"w{i}.mp4"]["video_id"] for i in range(3)] == [
        before[f"v{i}.mp4"]["video_id"] for i in range(3)
    ]
    assert (hashed(report), report.unreadable) == (0, 0)


def test_a_large_file_that_moved_while_another_took_its_place(archive: Path, large: None) -> None:
    before = videos(run(archive))
    (archive / "v0.mp4").rename(archive / "w0.mp4")
    make_video(archive / "v0.mp4", 555, 25)
    after = videos(run(archive))
    assert after["w0.mp4"]["video_id"] == before["v0.mp4"]["video_id"]
    assert after["v0.mp4"]["video_id"] not in {v["video_id"] for v in before.values()}


def test_two_adders_of_the_same_entries_plan_each_item_once(archive: Path) -> None:
    store = run(archive).store
    shutil.copy(archive / "v0.mp4", archive / "new.mp4")
    entries = read_entries(str(archive))
    assert add_entries(ShardStore.open(store.url), entries, "one") == 1
    assert add_entries(ShardStore.open(store.url), entries, "two") == 0
