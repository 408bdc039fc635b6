"""Replanning against a plain model of an archive that changes under our eyes."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.replan import NextGeneration, known_videos, next_generation
from pipeline.store.kinds import TARGETS
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec
from schemas.shard import Failure
from schemas.video import VIDEOS_SCHEMA, segment_id

CLIP = ClipSpec(seconds=1)
US = 1_000_000
Words = tuple[str | None, str | None, str | None]
Segment = tuple[int | None, int | None]
WHOLE: tuple[Segment, ...] = ((None, None),)
HALVES: tuple[Segment, ...] = ((None, 2 * US), (2 * US, None))


def file_id(content: object) -> str:
    return hashlib.blake2b(str(content).encode(), digest_size=16).hexdigest()


def row(
    content: object,
    uris: list[str],
    words: Words = (None, None, None),
    segment: Segment = (None, None),
    unreadable: str | None = None,
) -> dict[str, Any]:
    """One row of the videos table; files last 5 s."""
    file = file_id(content)
    return {
        "video_id": segment_id(file, *segment),
        "file_id": file,
        "uris": uris,
        "start_us": segment[0],
        "end_us": segment[1],
        "duration_us": 0 if unreadable else 5 * US,
        "num_bytes": 1000,
        "width": 64,
        "height": 48,
        "fps": 25.0,
        "codec": "h264",
        "container": "mp4",
        **dict(zip(("label", "split", "group"), words, strict=True)),
        "unreadable": unreadable,
    }


def away(uri: str, *, permanent: bool = False) -> dict[str, Any]:
    """The row of a file that could not be probed: away for now, or damaged."""
    failure = Failure("", uri, "open", "FileNotFoundError", "no such file", permanent, 1, 0)
    return row(("unreadable", uri, permanent), [uri], unreadable=json.dumps(failure.to_json()))


def new_store() -> ShardStore:
    url = f"memory://{uuid.uuid4().hex}"
    return ShardStore.create(url, kind=TARGETS, name="t", fingerprint="f" * 32, spec={})


def look(store: ShardStore, rows: list[dict[str, Any]], batch_rows: int = 3) -> NextGeneration:
    """Plan what ``rows`` adds to ``store``, in small batches."""
    table = pa.Table.from_pylist(rows, VIDEOS_SCHEMA)
    added = next_generation(
        lambda: table.to_batches(max_chunksize=batch_rows),
        CLIP,
        known=known_videos(store),
        removed=store.tombstones(),
        shard_clips=4,
    )
    if not added.is_empty:
        assert store.add_plan(added.rows()) is not None
    return added


def remove(store: ShardStore, video: str) -> None:
    store.files.put_new(f"tombstones/{uuid.uuid4().hex}.json", json.dumps({"ids": [video]}).encode())


def newest(store: ShardStore) -> dict[str, dict[str, Any]]:
    """The row in force of each video."""
    return {r["video_id"]: r for plan in store.plans() for b in plan.batches() for r in b.to_pylist()}


def work(store: ShardStore) -> Counter[str]:
    """How often each video is planned for work."""
    every = [r for plan in store.plans() for b in plan.batches() for r in b.to_pylist()]
    return Counter(r["video_id"] for r in every if r["shard"] >= 0)


def planned(store: ShardStore) -> dict[str, tuple[set[str], Words]]:
    return {i: (set(r["uris"]), (r["label"], r["split"], r["group"])) for i, r in newest(store).items()}


# ------------------------------------------------------------------------------------------ the model


@dataclass
class Archive:
    """Which content lies at which path, what is said of a content, and which files cannot be reached."""

    files: dict[str, int] = field(default_factory=dict)
    words: dict[int, Words] = field(default_factory=dict)
    halves: set[int] = field(default_factory=set)
    away: set[str] = field(default_factory=set)

    def rows(self) -> list[dict[str, Any]]:
        by_content: dict[int, list[str]] = {}
        for path in sorted(self.files.keys() - self.away):
            by_content.setdefault(self.files[path], []).append(path)
        rows = [
            row(content, paths, self.words.get(content, (None, None, None)), segment)
            for content, paths in by_content.items()
            for segment in (HALVES if content in self.halves else WHOLE)
        ]
        return rows + [away(path) for path in sorted(self.away & self.files.keys())]


@dataclass
class Expected:
    """What a store should hold: for each video its file, the URIs in force and the newest words."""

    file: dict[str, str] = field(default_factory=dict)
    uris: dict[str, set[str]] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def see(self, rows: list[dict[str, Any]]) -> None:
        for r in rows:
            if r["unreadable"]:
                continue
            for video in self.uris.keys() - self.removed:
                if self.file[video] != r["file_id"]:
                    self.uris[video] -= set(r["uris"])
        for r in rows:
            video = r["video_id"]
            if video in self.removed:
                continue
            self.file[video] = r["file_id"]
            self.uris.setdefault(video, set()).update(r["uris"])
            before = self.words.get(video, (None, None, None))
            now = (r["label"], r["split"], r["group"])
            self.words[video] = tuple(n if n is not None else b for n, b in zip(now, before, strict=True))  # type: ignore[assignment]


PATHS = st.sampled_from(["a", "b", "c", "d", "e"])
CONTENTS = st.integers(0, 5)
WORDS = st.tuples(*[st.sampled_from([None, "x", "y"])] * 3)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), PATHS, CONTENTS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("copy"), PATHS, PATHS),
    st.tuples(st.just("say"), CONTENTS, WORDS),
    st.tuples(st.just("forget"), PATHS, st.none()),
    st.tuples(st.just("cut"), CONTENTS, st.none()),
    st.tuples(st.just("lose"), PATHS, st.none()),
    st.tuples(st.just("find"), PATHS, st.none()),
    st.tuples(st.just("remove"), CONTENTS, st.none()),
)


def apply(archive: Archive, store: ShardStore, expected: Expected, name: str, a: Any, b: Any) -> None:
    if name == "put":
        archive.files[a] = b
        archive.away.discard(a)
    elif name in ("move", "copy") and a in archive.files and a not in archive.away and a != b:
        archive.files[b] = archive.files[a]
        archive.away.discard(b)
        if name == "move":
            del archive.files[a]
    elif name == "say":
        archive.words[a] = b
    elif name == "forget":
        archive.files.pop(a, None)
    elif name == "cut":
        archive.halves ^= {a}
    elif name == "lose":
        archive.away |= {a} & archive.files.keys()
    elif name == "find":
        archive.away.discard(a)
    elif name == "remove" and file_id(a) in expected.uris and file_id(a) not in expected.removed:
        remove(store, file_id(a))
        expected.removed.add(file_id(a))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_history_of_an_archive_is_planned_as_the_model_says(history: list[list[Any]]) -> None:
    archive, expected, store = Archive(), Expected(), new_store()
    for operations in history:
        for name, a, b in operations:
            apply(archive, store, expected, name, a, b)
        rows = archive.rows()
        frozen = {i: v for i, v in planned(store).items() if i in expected.removed}
        before = work(store).keys()
        expected.see(rows)
        added = look(store, rows)

        fresh = {r["video_id"] for r in rows} - before - expected.removed
        assert added.new_videos == len(fresh)
        assert set(work(store)) == set(expected.uris)
        assert set(work(store).values()) <= {1}
        now = planned(store)
        assert {i: v for i, v in now.items() if i in expected.removed} == frozen
        alive = now.keys() - expected.removed
        assert {i: now[i] for i in alive} == {i: (expected.uris[i], expected.words[i]) for i in alive}
        assert look(store, rows).is_empty


# ------------------------------------------------------------------------------------------ by example


def test_a_second_look_at_the_segments_of_one_file_adds_nothing() -> None:
    store = new_store()
    rows = [row(1, ["a"], segment=s) for s in HALVES]
    assert look(store, rows).new_videos == 2
    assert look(store, rows).is_empty


def test_all_segments_of_a_file_are_superseded_by_other_bytes() -> None:
    store = new_store()
    look(store, [row(1, ["a"], segment=s) for s in HALVES])
    added = look(store, [row(2, ["a"])])
    assert (added.new_videos, added.superseded) == (1, 2)
    assert {i: r["uris"] for i, r in newest(store).items() if r["file_id"] == file_id(1)} == {
        segment_id(file_id(1), *s): [] for s in HALVES
    }


def test_a_copy_that_is_overwritten_is_no_longer_an_alias_of_its_video() -> None:
    store = new_store()
    look(store, [row(1, ["a", "b"])])
    added = look(store, [row(2, ["a"])])
    assert (added.new_videos, added.amended, added.superseded) == (1, 1, 0)
    assert newest(store)[file_id(1)]["uris"] == ["b"]
    assert look(store, [row(2, ["a"]), row(1, ["b"])]).is_empty


def test_a_file_that_cannot_be_reached_supersedes_nothing_and_is_forgotten_when_it_is_back() -> None:
    store = new_store()
    look(store, [row(1, ["a"], ("walk", None, None))])
    lost = look(store, [away("a")])
    assert (lost.new_videos, lost.new_clips, lost.superseded) == (1, 0, 0)
    assert look(store, [away("a")]).is_empty
    back = look(store, [row(1, ["a"])])
    assert (back.new_videos, back.amended, back.superseded) == (0, 0, 1)
    assert newest(store)[file_id(1)]["label"] == "walk"


def test_a_file_that_is_damaged_now_supersedes_what_was_there() -> None:
    store = new_store()
    look(store, [row(1, ["a"])])
    assert look(store, [away("a", permanent=True)]).superseded == 1


def test_a_superseded_video_that_comes_back_keeps_its_words_and_needs_no_work() -> None:
    store = new_store()
    look(store, [row(1, ["a"], ("walk", "train", "g"))])
    look(store, [row(2, ["a"])])
    added = look(store, [row(2, ["a"]), row(1, ["c"])])
    assert (added.new_videos, added.amended) == (0, 1)
    assert planned(store)[file_id(1)] == ({"c"}, ("walk", "train", "g"))


def test_two_videos_that_swap_places_are_amended_and_neither_is_superseded() -> None:
    store = new_store()
    look(store, [row(1, ["a"]), row(2, ["b"])])
    added = look(store, [row(1, ["b"]), row(2, ["a"])])
    assert (added.new_videos, added.amended, added.superseded) == (0, 2, 0)
    assert {i: u for i, (u, _) in planned(store).items()} == {file_id(1): {"b"}, file_id(2): {"a"}}


def test_a_removed_video_is_counted_and_never_planned_again() -> None:
    store = new_store()
    look(store, [row(1, ["a"]), row(2, ["b"])])
    remove(store, file_id(1))
    added = look(store, [row(1, ["a", "z"], ("walk", None, None)), row(2, ["b"]), row(3, ["c"])])
    assert (added.new_videos, added.amended, added.skipped_removed) == (1, 0, 1)
    gone_before_it_was_planned = file_id(4)
    remove(store, gone_before_it_was_planned)
    assert look(store, [row(4, ["d"])]).is_empty


def test_totals_count_only_what_is_new() -> None:
    store = new_store()
    look(store, [row(1, ["a"])])
    added = look(store, [row(1, ["a", "b"]), row(2, ["c"]), row(3, ["d"])])
    assert (added.new_videos, added.new_clips, added.num_bytes, added.duration_us) == (2, 10, 2000, 10 * US)


def test_what_is_computed_anew_is_not_taken_for_a_newer_word() -> None:
    store = new_store()
    look(store, [row(1, ["a"], ("walk", None, None))])
    stale = pa.Table.from_pylist([{**row(1, ["old"]), "clips": 5, "shard": 0}], TARGETS.plan_schema)
    store.add_plan(stale.to_batches(), reopens=True)
    assert look(store, [row(1, ["a"], ("walk", None, None))]).is_empty


def test_no_video_at_all_is_an_empty_generation() -> None:
    assert look(new_store(), []).is_empty


@pytest.mark.parametrize("batch_rows", [1, 7, 100_000])
def test_the_plan_does_not_depend_on_the_batches(batch_rows: int) -> None:
    store = new_store()
    rows = [row(i, [f"v{i}"]) for i in range(40)]
    look(store, rows[:20], batch_rows)
    look(store, [{**r, "label": "walk"} for r in rows], batch_rows)
    assert set(work(store).values()) == {1}
    assert [r["label"] for r in newest(store).values()] == ["walk"] * 40
    shards = [(s, r["video_id"]) for s, r in ((r["shard"], r) for r in newest(store).values())]
    assert len(shards) == 40
