"""The catalogue: copies merged, contradictions refused, segments cut, nothing left out."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import build_catalog, item_ids, items_to_hash, sampled_collisions, true_file_ids
from pipeline.plan import video_clips
from schemas.clip import ClipSpec, clip_spans
from schemas.errors import ManifestError
from schemas.shard import Failure
from schemas.video import ENTRIES_SCHEMA, PROBE_SCHEMA, VIDEOS_SCHEMA, segment_id

US = 1_000_000


def entry(uri: str, **words: Any) -> dict[str, Any]:
    return {"uri": uri, "token": "t", "num_bytes": 1, **words}


def entries_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), ENTRIES_SCHEMA)


def probe(entries: pa.Table, files: dict[str, str], seconds: float = 10, method: str = "full") -> pa.Table:
    """Probe rows of the entries whose URI has a file."""
    rows = {}
    for uri, item in zip(entries["uri"].to_pylist(), item_ids(entries).to_pylist(), strict=True):
        if uri in files:
            rows[item] = {
                "item_id": item,
                "file_id": files[uri],
                "id_method": method,
                "num_bytes": 1,
                "duration_us": int(seconds * US),
                "width": 64,
                "height": 48,
                "rotation": 0,
                "fps": 25.0,
                "codec": "h264",
                "container": "mp4",
                "has_audio": False,
                "truncated": False,
                "probe_ms": 1.0,
            }
    return pa.Table.from_pylist(list(rows.values()), PROBE_SCHEMA)


def build(entries: pa.Table, files: dict[str, str], **kwargs: Any) -> list[dict[str, Any]]:
    videos = build_catalog(entries, probe(entries, files, **kwargs), {}, {})
    assert videos.schema == VIDEOS_SCHEMA
    return list(videos.to_pylist())


FILE_A, FILE_B = "aa" * 16, "bb" * 16


# ---------------------------------------------------------------------------------------------- copies


def test_copies_are_one_video_with_every_uri_and_whatever_any_of_them_says() -> None:
    entries = entries_of(
        entry("x", label="walk"), entry("y"), entry("z", split="train"), entry("w", label="walk", group="g")
    )
    videos = build(entries, {"x": FILE_A, "y": FILE_B, "z": FILE_A, "w": FILE_A})
    by_id = {v["video_id"]: v for v in videos}
    assert len(videos) == 2
    assert by_id[FILE_A]["uris"] == ["x", "z", "w"]
    assert [by_id[FILE_A][n] for n in ("label", "split", "group")] == ["walk", "train", "g"]
    assert by_id[FILE_B]["uris"] == ["y"]


def test_the_same_row_twice_is_one_uri() -> None:
    assert [v["uris"] for v in build(entries_of(entry("x"), entry("x")), {"x": FILE_A})] == [["x"]]


@pytest.mark.parametrize("name", ["label", "split", "group"])
def test_copies_that_contradict_each_other_are_refused_by_name(name: str) -> None:
    entries = entries_of(entry("x"), entry("y", **{name: "one"}), entry("z", **{name: "two"}))
    with pytest.raises(ManifestError, match=rf"{name}s: y \('one'\) and z \('two'\)"):
        build(entries, dict.fromkeys("xyz", FILE_A))


def test_two_labels_of_one_path_are_refused_too() -> None:
    with pytest.raises(ManifestError, match=r"two labels: x \('one'\) and x \('two'\)"):
        build(entries_of(entry("x", label="one"), entry("x", label="two")), {"x": FILE_A})


def test_a_group_in_two_splits_is_refused_and_one_without_a_split_is_not() -> None:
    good = entries_of(entry("x", group="g", split="train"), entry("y", group="g"))
    assert len(build(good, {"x": FILE_A, "y": FILE_B})) == 2
    bad = entries_of(entry("x", group="g", split="train"), entry("y", group="g", split="test"))
    with pytest.raises(ManifestError, match=r"group 'g' is in the splits 'test' and 'train' \(1 such"):
        build(bad, {"x": FILE_A, "y": FILE_B})


def test_segments_of_a_file_in_two_splits_are_refused_unless_they_have_groups_of_their_own() -> None:
    def segments(first: str | None, second: str | None) -> pa.Table:
        return entries_of(
            entry("x", start_us=0, end_us=4 * US, split="train", group=first),
            entry("x", start_us=4 * US, split="test", group=second),
        )

    with pytest.raises(ManifestError, match=r"file 'x' is in the splits 'test' and 'train' \(1 such"):
        build(segments(None, None), {"x": FILE_A})
    assert len(build(segments("a", "b"), {"x": FILE_A})) == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, "a", "b"])), min_size=1, max_size=12))
def test_merging_keeps_each_uri_once_and_refuses_just_what_contradicts(
    rows: list[tuple[int, str | None]],
) -> None:
    entries = entries_of(*(entry(f"u{i}", label=label) for i, (_, label) in enumerate(rows)))
    files = {f"u{i}": f"{file:032x}" for i, (file, _) in enumerate(rows)}
    words: dict[int, set[str]] = {}
    for file, label in rows:
        words.setdefault(file, set()).update({label} - {None})
    if any(len(w) > 1 for w in words.values()):
        with pytest.raises(ManifestError):
            build(entries, files)
        return
    videos = build(entries, files)
    assert sorted(u for v in videos for u in v["uris"]) == sorted(files)
    assert {v["video_id"]: v["label"] for v in videos} == {
        f"{file:032x}": next(iter(w), None) for file, w in words.items()
    }


# -------------------------------------------------------------------------------------------- segments


def test_segments_are_videos_of_their_own_beside_the_whole() -> None:
    entries = entries_of(
        entry("x"),
        entry("x", start_us=0, end_us=4 * US, label="walk"),
        entry("x", start_us=4 * US, label="run"),
    )
    videos = {v["video_id"]: v for v in build(entries, {"x": FILE_A})}
    assert set(videos) == {FILE_A, segment_id(FILE_A, 0, 4 * US), segment_id(FILE_A, 4 * US, None)}
    assert {v["label"] for v in videos.values()} == {None, "walk", "run"}
    assert all(v["file_id"] == FILE_A and v["uris"] == ["x"] for v in videos.values())


@settings(deadline=None)
@given(
    start_us=st.one_of(st.none(), st.integers(0, 12 * US)),
    length_us=st.one_of(st.none(), st.integers(1, 12 * US)),
    seconds=st.floats(0.1, 12),
)
def test_the_clips_planned_of_a_segment_are_those_that_will_be_cut(
    start_us: int | None, length_us: int | None, seconds: float
) -> None:
    end_us = None if length_us is None else (start_us or 0) + length_us
    entries = entries_of(entry("x", start_us=start_us, end_us=end_us))
    table = build_catalog(entries, probe(entries, {"x": FILE_A}, seconds), {}, {})
    [video], clip = table.to_pylist(), ClipSpec(seconds=1.5)
    stop = video["end_us"] if video["end_us"] is not None else video["duration_us"]
    spans = clip_spans(video["start_us"] or 0, stop, clip)
    assert video_clips(table.combine_chunks().to_batches()[0], clip).tolist() == [
        0 if video["unreadable"] else len(spans)
    ]
    assert video["unreadable"] or spans[-1].end_us <= int(seconds * US)


def test_a_segment_beyond_the_end_is_listed_as_unreadable() -> None:
    entries = entries_of(entry("x", start_us=10 * US), entry("x", start_us=9 * US))
    beyond, within = sorted(build(entries, {"x": FILE_A}), key=lambda v: v["unreadable"] is None)
    failure = Failure.from_json(json.loads(beyond["unreadable"]))
    assert (failure.error, failure.permanent, failure.video_id) == ("SegmentError", True, beyond["video_id"])
    assert "10.0 s" in failure.message
    assert within["unreadable"] is None


# ------------------------------------------------------------------------------------------ unreadable


def failure_of(item: str, *, permanent: bool = True) -> Failure:
    return Failure(item, "x", "open", "InvalidDataError", "not a video", permanent, 1, 1)


def test_a_file_that_could_not_be_probed_is_a_video_without_clips() -> None:
    entries = entries_of(entry("x", label="walk"), entry("y"), entry("never probed"))
    item = item_ids(entries)[0].as_py()
    videos = build_catalog(entries, probe(entries, {"y": FILE_B}), {item: failure_of(item)}, {})
    assert [v["uris"] for v in videos.to_pylist()] == [["y"], ["x"]]
    bad = videos.to_pylist()[1]
    failure = Failure.from_json(json.loads(bad["unreadable"]))
    assert (failure.video_id, failure.missing_rows, bad["label"]) == (bad["video_id"], 0, "walk")
    assert video_clips(videos.combine_chunks().to_batches()[0], ClipSpec()).tolist() == [5, 0]


def test_nothing_probed_yet_is_an_empty_catalogue() -> None:
    entries = entries_of(entry("x"))
    assert build_catalog(entries, PROBE_SCHEMA.empty_table(), {}, {}).num_rows == 0


# ----------------------------------------------------------------------------------------- sampled ids


def test_only_sampled_ids_that_meet_are_collisions() -> None:
    entries = entries_of(*(entry(u) for u in "abc"))
    files = {"a": FILE_A, "b": FILE_A, "c": FILE_B}
    a, b, _ = item_ids(entries).to_pylist()
    assert sampled_collisions(probe(entries, files, method="sampled")) == {FILE_A: [a, b]}
    assert sampled_collisions(probe(entries, files, method="full")) == {}
    assert sampled_collisions(PROBE_SCHEMA.empty_table()) == {}


ITEMS = ["i", "j", "k"]


@pytest.mark.parametrize(
    ("full", "there", "to_hash", "ids"),
    [
        ({}, "ijk", "ijk", {"i": "S", "j": None, "k": None}),
        ({"i": "1"}, "ijk", "jk", {"i": "S", "j": None, "k": None}),
        ({"i": "1", "j": "1", "k": "2"}, "ijk", "", {"i": "S", "j": "S", "k": "2"}),
        ({"i": "1", "j": "1", "k": "2"}, "", "", {"i": "S", "j": "S", "k": "2"}),
        ({}, "j", "", {"i": "S", "j": "S", "k": "S"}),
        ({}, "jk", "jk", {"i": "S", "j": "S", "k": None}),
        ({"j": "1"}, "jk", "k", {"i": "S", "j": "S", "k": None}),
        ({"j": "1", "k": "2"}, "jk", "", {"i": "S", "j": "S", "k": "2"}),
        ({"i": "1"}, "k", "k", {"i": "S", "j": "S", "k": None}),
        ({}, "", "", {"i": "S", "j": "S", "k": "S"}),
    ],
)
def test_who_keeps_a_sampled_id(
    full: dict[str, str], there: str, to_hash: str, ids: dict[str, str | None]
) -> None:
    collisions = {"S": ITEMS}
    assert items_to_hash(collisions, full, set(there)) == list(to_hash)
    assert true_file_ids(collisions, full, set(there)) == ids


def test_renaming_splits_and_what_cannot_be_told_is_left_out() -> None:
    entries = entries_of(*(entry(u) for u in "abc"))
    a, b, c = item_ids(entries).to_pylist()
    probed = probe(entries, dict.fromkeys("abc", FILE_A), method="sampled")
    videos = build_catalog(entries, probed, {}, {a: FILE_A, b: FILE_B, c: None}).to_pylist()
    assert [(v["video_id"], v["uris"]) for v in videos] == [(FILE_A, ["a"]), (FILE_B, ["b"])]
    failed = build_catalog(entries, probed, {c: failure_of(c, permanent=False)}, {c: None}).to_pylist()
    assert {tuple(v["uris"]): v["unreadable"] is None for v in failed} == {("a", "b"): True, ("c",): False}
