"""Manifests, folders, globs and single files, local and remote; and what is said when they are wrong."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.manifest import read_entries
from schemas.errors import ManifestError, RetryableError, SettingsError
from schemas.video import ENTRIES_SCHEMA
from tests.http_server import answering
from tests.s3_server import s3_bucket, s3_server  # noqa: F401 - fixtures


def touch(path: Path, data: bytes = b"video") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def manifest(folder: Path, text: str | bytes, name: str = "m.csv") -> str:
    return touch(folder / name, text if isinstance(text, bytes) else text.encode())


def column(source: str, name: str) -> list[Any]:
    return list(read_entries(source)[name].to_pylist())


# ---------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "uri,label\na.mp4,007\nb.mp4,\n"),
        ("m.csv", "\ufeffuri,label\na.mp4,007\nb.mp4,\n"),
        ("m.csv", "uri,label\r\na.mp4,007\r\nb.mp4,\r\n"),
        ("m.csv", 'label,"uri"\n"007",a.mp4\n"",b.mp4\n'),
        ("m.csv", "uri,label,notes\na.mp4,007,1\nb.mp4,  ,not a number\n"),
        ("M.TSV", "uri\tlabel\na.mp4\t007\nb.mp4\t\n"),
        ("m.jsonl", '{"uri": "a.mp4", "label": "007"}\n\n{"uri": "b.mp4", "label": null, "extra": [1]}'),
        ("m.ndjson", '\ufeff{"uri": "a.mp4", "label": "007"}\r\n{"uri": "b.mp4"}\r\n'),
    ],
)
def test_every_text_format_gives_the_same_entries(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "a.mp4")
    entries = read_entries(manifest(tmp_path, text, name))
    assert entries.schema == ENTRIES_SCHEMA
    assert entries["uri"].to_pylist() == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4"]
    assert entries["label"].to_pylist() == ["007", None]
    assert entries["num_bytes"].to_pylist() == [5, None]


def test_parquet_with_numbers_dictionaries_and_other_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": pa.array(["a.mp4", "b.mp4"]).dictionary_encode(),
            "label": pa.array([7, None], pa.int32()),
            "start": pa.array([1, None], pa.int8()),
            "blob": pa.array([b"x", b"y"]),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    entries = read_entries(str(tmp_path / "m.parquet"))
    assert entries["label"].to_pylist() == ["7", None]
    assert entries["start_us"].to_pylist() == [1_000_000, None]


@pytest.mark.parametrize(
    "label", ["2024-05-01", "2024-05-01 10:00:00", "true", "NA", "null", "1e3", "00", "12:30"]
)
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_text_stays_the_text_that_it_is(tmp_path: Path, name: str, label: str) -> None:
    as_json = json.dumps({"uri": "a.mp4", "label": label, "group": label})
    text = f"uri,label,group\na.mp4,{label},{label}\n" if name == "m.csv" else as_json
    entries = read_entries(manifest(tmp_path, text, name))
    assert entries["label"].to_pylist() == entries["group"].to_pylist() == [label]


def test_jsonl_takes_numbers_as_labels_beside_text(tmp_path: Path) -> None:
    rows = [
        {"uri": "a.mp4", "label": 7},
        {"uri": "b.mp4", "label": "x"},
        {"uri": "c.mp4", "label": "a\u2028b"},
    ]
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    assert column(manifest(tmp_path, text, "m.jsonl"), "label") == ["7", "x", "a\u2028b"]


def test_quoted_commas_quotes_and_newlines(tmp_path: Path) -> None:
    entries = read_entries(manifest(tmp_path, 'uri,label\n"a, b.mp4","say ""hi""\nthere"\nc.mp4,x\n'))
    assert entries["uri"].to_pylist() == [f"{tmp_path}/a, b.mp4", f"{tmp_path}/c.mp4"]
    assert entries["label"].to_pylist() == ['say "hi"\nthere', "x"]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_segments_in_seconds_become_microseconds(tmp_path: Path, name: str) -> None:
    rows = [("", ""), ("0", ""), ("", "2.5"), (" 1.0000004", "1.5"), ("1e1", "3600")]
    if name == "m.csv":
        text = "uri,start,end\n" + "".join(f"a.mp4,{s},{e}\n" for s, e in rows)
    else:
        text = "".join(json.dumps({"uri": "a.mp4", "start": s, "end": e}) + "\n" for s, e in rows)
    entries = read_entries(manifest(tmp_path, text, name))
    assert entries["start_us"].to_pylist() == [None, 0, None, 1_000_000, 10_000_000]
    assert entries["end_us"].to_pylist() == [None, None, 2_500_000, 1_500_000, 3_600_000_000]


# ---------------------------------------------------------------------------------------------- places


def test_relative_uris_lie_beside_the_manifest_and_are_made_plain(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "videos/a.mp4"), touch(tmp_path / "b.mp4")
    lists = tmp_path / "lists"
    source = manifest(lists, f"uri\n../videos/./a.mp4\n{b}\nfile://{a}\nmissing.mp4\n")
    assert column(source, "uri") == [a, b, a, f"{lists}/missing.mp4"]
    assert column(f"file://{source}", "uri") == [a, b, a, f"{lists}/missing.mp4"]
    tokens = column(f"file://{source}", "token")
    assert tokens[0] == tokens[2] is not None and tokens[3] is None


def test_a_relative_source_is_resolved_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = touch(tmp_path / "a.mp4")
    manifest(tmp_path, "uri\na.mp4\n")
    monkeypatch.chdir(tmp_path)
    assert (
        column("m.csv", "uri")
        == column("./m.csv", "uri")
        == column("a.mp4", "uri")
        == column(".", "uri")
        == [a]
    )


def test_a_folder_is_searched_deep_for_videos_by_suffix_and_sorted(tmp_path: Path) -> None:
    wanted = [touch(tmp_path / "x" / n) for n in ("b/z.MKV", "a.mp4", "c d/é.webm")]
    touch(tmp_path / "x" / "notes.txt")
    touch(tmp_path / "y.mp4")
    os.symlink(tmp_path / "y.mp4", tmp_path / "x" / "link.mp4")
    assert column(str(tmp_path / "x"), "uri") == sorted([*wanted, str(tmp_path / "x/link.mp4")])
    assert None not in column(str(tmp_path / "x"), "token")


def test_a_glob_takes_what_it_matches_and_no_folder(tmp_path: Path) -> None:
    wanted = [touch(tmp_path / n) for n in ("v/1.mp4", "v/2.mp4")]
    touch(tmp_path / "v/3.avi")
    (tmp_path / "v/folder.mp4").mkdir()
    assert column(f"{tmp_path}/v/*.mp4", "uri") == wanted
    assert column(f"{tmp_path}/**/[12].mp4", "uri") == wanted


def test_names_with_wildcards_in_them_are_taken_as_they_are(tmp_path: Path) -> None:
    a = touch(tmp_path / "[2020] trip?" / "a*.mp4")
    assert column(a, "uri") == column(os.path.dirname(a), "uri") == [a]


def test_one_file_is_one_entry_whatever_its_suffix(tmp_path: Path) -> None:
    entries = read_entries(touch(tmp_path / "movie.weird"))
    assert entries["num_bytes"].to_pylist() == [5]
    assert entries["label"].null_count == 1


def test_the_token_changes_with_the_bytes_and_not_with_a_second_look(tmp_path: Path) -> None:
    a = Path(touch(tmp_path / "a.mp4"))
    before = column(str(a), "token")
    assert column(str(a), "token") == before
    a.write_bytes(b"other")
    os.utime(a, ns=(0, 12345))
    assert column(str(a), "token") != before


def test_memory_manifest_at_the_root_and_in_a_folder() -> None:
    fs = fsspec.filesystem("memory")
    for folder in ("", f"{uuid.uuid4().hex}/"):
        fs.pipe(f"/{folder}a.mp4", b"video")
        fs.pipe(f"/{folder}m.csv", b"uri\na.mp4\nb.mp4\n")
        entries = read_entries(f"memory://{folder}m.csv")
        assert entries["uri"].to_pylist() == [f"memory://{folder}a.mp4", f"memory://{folder}b.mp4"]
        assert entries["num_bytes"].to_pylist() == [5, None]
        fs.rm(f"/{folder}m.csv")


@pytest.mark.s3
def test_s3_manifest_folder_glob_and_file(s3_bucket: str) -> None:  # noqa: F811
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    names = [f"{s3_bucket}/deep/v{i:02d}.mp4" for i in range(12)]
    for name in names:
        fs.pipe(name, name.encode())
    rows = [f"deep/v{i:02d}.mp4" for i in range(12)]
    fs.pipe(f"{s3_bucket}/m.csv", "\n".join(["uri", *rows, "lists/../deep/absent.mp4"]).encode())
    entries = read_entries(f"{s3_bucket}/m.csv")
    assert entries["uri"].to_pylist()[:12] == names
    assert entries["token"].null_count == 1
    tokens = entries["token"].to_pylist()[:12]
    assert len(set(tokens)) == 12
    assert column(f"{s3_bucket}/deep", "uri") == names
    assert column(f"{s3_bucket}/deep/", "token") == tokens
    assert column(f"{s3_bucket}/deep/v0[12].mp4", "uri") == names[1:3]
    assert column(names[3], "token") == tokens[3:4]
    for missing in (f"{s3_bucket}/nothing", f"{s3_bucket}/nothing/*.mp4", "s3://no-such-bucket-at-all/x"):
        with pytest.raises(ManifestError, match=missing.replace("*", r"\*")):
            read_entries(missing)


# ---------------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "", "empty"),
        ("m.csv", "\n\n", "empty"),
        ("m.jsonl", "", "empty"),
        ("m.parquet", "", "empty"),
        ("m.csv", "uri,label\n", "no row"),
        ("m.csv", "uri", "no row"),
        ("m.csv", "\ufeffuri,label\r\n", "no row"),
        ("m.csv", "path,label\na.mp4,x\n", r"'uri'.*'path', 'label'"),
        ("m.csv", "URI\na.mp4\n", r"'uri'.*'URI'"),
        ("m.jsonl", '{"path": "a.mp4"}', r"'uri'.*'path'"),
        ("m.csv", "uri,label\na.mp4,x\n ,y\n", "row 2 has no uri"),
        ("m.jsonl", '{"uri": "a.mp4"}\n{"label": "x"}', "row 2 has no uri"),
        ("m.csv", "uri,start\na.mp4,soon\n", "'start'.*soon"),
        ("m.csv", "uri,start\na.mp4,00:01:30\n", "'start'.*00:01:30"),
        ("m.csv", "uri,end\na.mp4,2024-01-01\n", "'end'.*2024-01-01"),
        ("m.csv", "uri,end\na.mp4,nan\n", "'end'"),
        ("m.csv", "uri,end\na.mp4,inf\n", "'end'"),
        ("m.csv", "uri,end\na.mp4,1e300\n", "'end'"),
        ("m.csv", "uri,start,end\na.mp4,,\na.mp4,2,2\n", r"row 2 .*a\.mp4.*2\.0 s"),
        ("m.csv", "uri,start,end\na.mp4,3,2\n", "no stretch"),
        ("m.csv", "uri,end\na.mp4,0\n", "no stretch"),
        ("m.csv", "uri,start\na.mp4,-1\n", r"-1\.0 s and end none"),
        ("m.csv", "uri,label\na.mp4,x,z\n", "cannot be read as csv"),
        ("m.csv", "uri,uri\na.mp4,b.mp4\n", "'uri' is there twice"),
        ("m.csv", b"uri\n\xff\xfe.mp4\n", "cannot be read as csv"),
        ("m.jsonl", '{"uri": "a.mp4"}\n{"uri": ', "line 2"),
        ("m.jsonl", '["a.mp4"]', "line 1: an object"),
        ("m.jsonl", '{"uri": {"a": 1}}', "line 1: uri must be text"),
        ("m.parquet", "not parquet at all", "cannot be read as parquet"),
        ("m.csv", "uri\nnoprotocol://x/a.mp4\n", "noprotocol"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_named_with_what_was_found(
    tmp_path: Path, name: str, text: str | bytes, words: str
) -> None:
    with pytest.raises(ManifestError, match=rf"(?s){words}") as caught:
        read_entries(manifest(tmp_path, text, name))
    assert name in str(caught.value) or "noprotocol" in words


def test_a_parquet_manifest_whose_start_is_a_date(tmp_path: Path) -> None:
    import datetime

    pq.write_table(
        pa.table({"uri": ["a.mp4"], "start": [datetime.datetime(2024, 1, 1)]}), tmp_path / "m.parquet"
    )
    with pytest.raises(ManifestError, match="'start' is not a number of seconds"):
        read_entries(str(tmp_path / "m.parquet"))


def test_nothing_there_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "texts/readme.txt")
    for source, words in (
        ("gone.csv", "nothing at"),
        ("gone", "nothing at"),
        ("gone/*.mp4", "no file matches"),
        ("empty", "0 files there"),
        ("texts", r"1 files there, none ending in \.264"),
    ):
        with pytest.raises(ManifestError, match=words) as caught:
            read_entries(str(tmp_path / source))
        assert str(tmp_path / source) in str(caught.value)
    with pytest.raises(ManifestError, match="noprotocol"):
        read_entries("noprotocol://x")


@pytest.mark.s3
def test_storage_that_does_not_answer_is_worth_a_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RetryableError, match="s3://bucket/x"):
        read_entries("s3://bucket/x")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (403, SettingsError, "access is denied"),
        (503, RetryableError, "run again"),
        (404, ManifestError, "nothing at"),
    ],
)
def test_what_a_server_answers_instead_of_a_manifest(status: int, error: type[Exception], says: str) -> None:
    with answering(status) as (url, _), pytest.raises(error, match=says):
        read_entries(f"{url}/manifest.csv")
