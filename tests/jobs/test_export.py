"""`locum export` over label stores: what is written where, in which order, and what is refused."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.cli import run as locum
from jobs.export import ExportOptions, export
from pipeline.exports.formats import FORMATS
from pipeline.store import local_files
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.errors import EXIT_SETTINGS, SettingsError
from schemas.policy import PolicySpec
from tests.jobs.labelled_archive import add_policy, run
from tests.jobs.labelling import EVERY_KIND, URI_OF, Clip, Made, make_labels
from tests.pipeline.store.stores import new_store

KINDS = list(EVERY_KIND)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_labels(tmp_path_factory.mktemp("labels"), list(EVERY_KIND.values())[::-1]).url


@pytest.fixture(scope="module")
def in_order(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_labels(tmp_path_factory.mktemp("labels"), list(EVERY_KIND.values())).url


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_should_be_looked_at_first_comes_first(labels: str, tmp_path: Path) -> None:
    export(labels, "csv", str(tmp_path / "a.csv"))
    assert [r["review"] for r in table(tmp_path / "a.csv")] == KINDS
    report = export(labels, "csv", str(tmp_path / "b.csv"), ExportOptions(limit=3))
    assert [r["review"] for r in table(tmp_path / "b.csv")] == KINDS[:3]
    assert (report.videos, report.more, report.kinds) == (3, 5, dict.fromkeys(KINDS[:3], 1))
    export(labels, "csv", str(tmp_path / "c.csv"), ExportOptions(order="uri"))
    assert [r["uri"] for r in table(tmp_path / "c.csv")] == sorted(URI_OF.values())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_whole(in_order: str, tmp_path: Path, name: str) -> None:
    out = tmp_path / "made" / "out"
    options = ExportOptions(uri_prefixes=("/v/=https://host/",))
    report = export(in_order, name, str(out), options)
    there = below(out if out.is_dir() else out.parent)
    assert len(there) == report.files and report.out == str(out)
    assert report.left_out == FORMATS[name].readable_only and report.videos == 8 - report.left_out
    first = {path: (out / path if out.is_dir() else out).read_bytes() for path in there}
    with pytest.raises(SettingsError, match="is there already"):
        export(in_order, name, str(out), options)
    again = ExportOptions(uri_prefixes=options.uri_prefixes, overwrite=True)
    assert export(in_order, name, str(out), again) == report
    assert {p: (out / p if out.is_dir() else out).read_bytes() for p in there} == first
    assert below(tmp_path) == sorted(
        str((out / p if out.is_dir() else out).relative_to(tmp_path)) for p in there
    )


def test_other_files_of_the_folder_are_left_alone(in_order: str, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"mine")
    (tmp_path / "3.vtt").write_bytes(b"mine too")
    with pytest.raises(SettingsError, match=r"3\.vtt is there already: --overwrite"):
        export(in_order, "webvtt", str(tmp_path))
    assert below(tmp_path) == ["3.vtt", "video.mp4"]
    export(in_order, "webvtt", str(tmp_path), ExportOptions(overwrite=True))
    assert (tmp_path / "video.mp4").read_bytes() == b"mine" and len(below(tmp_path)) == 8


def test_an_interrupted_write_leaves_the_old_file(
    in_order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_files.os, "fsync", full)
    with pytest.raises(SettingsError, match=r"cannot write .*a\.csv: No space left"):
        export(in_order, "csv", str(out), ExportOptions(overwrite=True))
    assert out.read_text() == "old" and below(tmp_path) == ["a.csv"]


def test_a_file_that_another_made_meanwhile_is_kept(
    in_order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("another's")
    monkeypatch.setattr("jobs.labelling.output._there", lambda *_: [])
    with pytest.raises(SettingsError, match=r"a\.csv was made by someone else meanwhile"):
        export(in_order, "csv", str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text() == "another's" and below(tmp_path) == ["a.csv"]


def test_folders_of_object_stores(in_order: str) -> None:
    report = export(in_order, "webvtt", "memory://exports/of/labels")
    assert (report.files, report.out) == (7, "memory://exports/of/labels")
    with pytest.raises(SettingsError, match="is there already, and 6 more of 7 files"):
        export(in_order, "webvtt", "memory://exports/of/labels")
    export(in_order, "csv", "memory://exports/a.csv")
    with pytest.raises(SettingsError, match=r"memory://exports/a\.csv is there already"):
        export(in_order, "csv", "memory://exports/a.csv")


# ---------------------------------------------------------------- URIs


def test_no_secret_and_other_beginnings(tmp_path: Path) -> None:
    uris = ["https://u:p@h/a.mp4?sig=1", "s3://bucket/x/b 1.mp4", "s3://bucket/c#1.mp4"]
    store = make_labels(tmp_path, [Made([Clip(0)], plan={"uris": [uri]}) for uri in uris])
    export(store.url, "csv", str(tmp_path / "a.csv"), ExportOptions(order="uri"))
    shown = ["https://h/a.mp4", "s3://bucket/c#1.mp4", "s3://bucket/x/b 1.mp4"]
    assert [r["uri"] for r in table(tmp_path / "a.csv")] == shown
    with pytest.raises(SettingsError, match=r"wants URLs .* 2 of 3 videos have none, as s3://bucket") as e:
        export(store.url, "label-studio", str(tmp_path / "ls"))
    assert "--uri-prefix s3://bucket/" in str(e.value) and not (tmp_path / "ls").exists()
    prefixes = ("s3://bucket/=https://cdn/", "s3://bucket/x/=/data/local-files/?d=x/")
    export(store.url, "label-studio", str(tmp_path / "ls"), ExportOptions("uri", None, prefixes))
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    assert [t["data"]["video"] for t in tasks] == [
        "/data/local-files/?d=x/b%201.mp4",
        "https://cdn/c%231.mp4",
        "https://h/a.mp4",
    ]
    with pytest.raises(SettingsError, match="fiftyone wants paths on its own disk, and 3 of 3"):
        export(store.url, "fiftyone", str(tmp_path / "fo"))


def test_a_prefix_that_no_uri_has_is_refused(in_order: str, tmp_path: Path) -> None:
    options = ExportOptions(uri_prefixes=("/v/=/w/", "/typo/=/w/"))
    with pytest.raises(SettingsError, match=r"--uri-prefix /typo/=\.\.\.: no URI begins so; one is /v/"):
        export(in_order, "csv", str(tmp_path / "a.csv"), options)


# ---------------------------------------------------------------- what is refused


def test_an_unfinished_store(tmp_path: Path) -> None:
    store = make_labels(tmp_path, [Made([Clip(0)] * 2)] * 7, finished=False)
    out = str(tmp_path / "a.csv")
    with pytest.raises(SettingsError, match="is not finished: 2 of 14 clips, in 1 shards, are pending"):
        export(store.url, "csv", out)
    report = export(store.url, "csv", out, ExportOptions(unfinished=True))
    assert (report.videos, report.pending_clips) == (6, 2)


def test_stores_of_another_kind_and_of_nothing(tmp_path: Path) -> None:
    out = str(tmp_path / "a.csv")
    with pytest.raises(SettingsError, match=r"is a store of targets: one of labels, made by `locum label`"):
        export(new_store(str(tmp_path)).url, "csv", out)
    with pytest.raises(SettingsError, match="holds no videos yet"):
        export(make_labels(tmp_path, []).url, "csv", out)
    assert not Path(out).exists()


def test_places_that_will_not_do(in_order: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, out, message in (
        ("csv", str(tmp_path), "this format is one file"),
        ("csv", f"{tmp_path}/new/", "this format is one file"),
        ("webvtt", str(tmp_path / "file"), "a folder is wanted"),
        ("csv", str(tmp_path / "file" / "a.csv"), "a folder is wanted"),
    ):
        with pytest.raises(SettingsError, match=message):
            export(in_order, name, out)
    with pytest.raises(SettingsError, match="there is no format 'xls': csv, jsonl"):
        export(in_order, "xls", str(tmp_path / "a"))
    assert below(tmp_path) == ["file"]


# ---------------------------------------------------------------- as a command


def command(*argv: str) -> int:
    return locum(["export", *argv])


def test_the_command(in_order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert command(in_order, "--format", "cvat", "-o", out, "--limit", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "store": in_order,
        "format": "cvat",
        "out": out,
        "files": 3,
        "videos": 2,
        "review": {"audit": 1, "models": 1},
        "left_out": 1,
        "more": 5,
        "pending_clips": 0,
    }
    assert command(in_order, "--format", "cvat", "-o", out, "--overwrite") == 0
    said = capsys.readouterr().out
    assert "7 videos exported as cvat" in said and "1  student and teacher disagree" in said
    assert "left out, for nothing of them could be read: 1" in said and f"{out} (8 files)" in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--format", "xls"], "xls"),
        (["--format", "csv", "--order", "size"], "size"),
        (["--format", "csv", "--limit", "0"], "--limit"),
        (["--format", "csv", "--uri-prefix", "nothing"], "wants OLD=NEW"),
    ],
)
def test_the_command_refuses(
    in_order: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    argv: Sequence[str],
    message: str,
) -> None:
    assert command(in_order, "-o", str(tmp_path / "a"), *argv) == EXIT_SETTINGS
    said = capsys.readouterr()
    assert message in said.err + said.out and not os.listdir(tmp_path)


# ---------------------------------------------------------------- of a real run


@pytest.mark.slow
def test_labels_of_real_videos(trained: Path, tmp_path: Path) -> None:
    """Of videos that were decoded, by a student that was trained: the export says what the store does."""
    policy = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="exported")
    store: ShardStore = run(trained, tmp_path, policy, audit_share=0.4, audit_seed=3).store
    export(store.url, "jsonl", str(tmp_path / "a.jsonl"))
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rows = read(store).to_pylist()
    assert len(found) == 18 == len({r["video_id"] for r in found})
    for video in found:
        mine = [r for r in rows if r["video_id"] == video["video_id"]]
        assert video["clips"] == len(mine) and video["deferred"] == 1 and Path(video["uri"]).exists()
        spans = [(s["start_us"], s["end_us"]) for s in video["segments"]]
        assert spans == sorted(spans) and spans[0][0] == 0 and spans[-1][1] == mine[-1]["end_us"]
        assert sum(b - a for a, b in spans) == mine[-1]["end_us"]
        assert sum(s["teacher_clips"] for s in video["segments"]) == 1
    ranks = [list(dict.fromkeys(r["review"] for r in found)).index(r["review"]) for r in found]
    assert ranks == sorted(ranks)
    for name in ("fiftyone", "webvtt", "cvat"):
        report = export(store.url, name, str(tmp_path / name))
        assert report.files == 18 + (name != "webvtt")
