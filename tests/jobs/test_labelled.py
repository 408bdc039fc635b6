"""What is made of a label store: words of both models, files, damage, segments; with the awkward stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.labelling.labelled import class_names_of, labelled_videos, with_segments
from pipeline.labelled import LabelledVideo
from pipeline.store.mend import remove
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.clip import ClipSpec
from tests.jobs.labelling import CLASSES, EVERY_KIND, ID_OF, Clip, Made, label_spec, make_labels
from tests.pipeline.store.stores import amendment, plan_row, video_id


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    return make_labels(tmp_path_factory.mktemp("labels"), list(EVERY_KIND.values()))


def by_kind(store: ShardStore) -> dict[str, LabelledVideo]:
    found = {video.video_id: video for video in labelled_videos(store)}
    return {kind: found[i] for kind, i in ID_OF.items()}


def test_words_counts_and_files(every_kind: ShardStore) -> None:
    found = by_kind(every_kind)
    assert (found["models"].student, found["models"].teacher) == (CLASSES[0], CLASSES[2])
    assert (found["audit"].audit, found["audit"].deferred) == (CLASSES[1], 0)
    assert found["sure"].student is found["sure"].teacher is found["sure"].audit is None
    damaged = found["damaged"]
    assert (damaged.clips, damaged.damaged, damaged.missing) == (2, 1, 1)
    assert found["unlabelled"].ranked == () and found["unlabelled"].clips == 2
    lost = found["unreadable"]
    assert (lost.clips, lost.missing, lost.failure, lost.uri) == (0, 2, "decode: Damaged", "/v/7.mp4")
    assert (damaged.width, damaged.height, damaged.fps, damaged.duration_us) == (320, 240, 25.0, 3_000_000)
    assert found["sure"].label == found["sure"].label_class == "walk"
    assert class_names_of(every_kind) == CLASSES


@pytest.mark.parametrize(("temperature", "student"), [(1.0, CLASSES[0]), (0.2, CLASSES[1])])
def test_the_student_is_asked_at_its_temperature(tmp_path: Path, temperature: float, student: str) -> None:
    """One clip that it is sure of, against two that it is not: at a low temperature they are votes."""
    made = Made([Clip(0, teacher=2), Clip(1, teacher=2, sure=1.0), Clip(1, teacher=2, sure=1.0)])
    store = make_labels(tmp_path, [made], spec=label_spec(student_temperature=temperature))
    (video,) = labelled_videos(store)
    assert (video.student, video.teacher) == (student, CLASSES[2])


def test_segments_are_of_the_rows(every_kind: ShardStore) -> None:
    videos = labelled_videos(every_kind)
    whole = with_segments(every_kind, videos)
    assert [v.video_id for v in whole] == [v.video_id for v in videos]
    rows = read(every_kind, ["video_id", "start_us", "end_us", "top1"]).to_pylist()
    for video in whole:
        mine = [r for r in rows if r["video_id"] == video.video_id and r["top1"] is not None]
        assert sum(s.end_us - s.start_us for s in video.segments) == 1_000_000 * len(mine)
        for r in mine:
            (over,) = [s for s in video.segments if s.start_us <= r["start_us"] < s.end_us]
            assert over.top1 == r["top1"] and r["end_us"] <= over.end_us
    one = with_segments(every_kind, whole[:1])
    assert one == whole[:1]


def test_overlapping_clips(tmp_path: Path) -> None:
    """A stride of half a clip, and a tail: segments touch, and cover what is covered."""
    clip = ClipSpec(num_frames=2, seconds=1.0, stride_seconds=0.5)
    made = Made([Clip(0), Clip(1), Clip(1), Clip(2)], plan={"duration_us": 2_250_000})
    store = make_labels(tmp_path, [made], spec=label_spec(clip=clip))
    (video,) = with_segments(store, labelled_videos(store))
    assert [(s.start_us, s.end_us, s.top1) for s in video.segments] == [
        (0, 750_000, 0),
        (750_000, 1_625_000, 1),
        (1_625_000, 2_250_000, 2),
    ]


def test_words_without_names_and_labels_of_the_manifest(tmp_path: Path) -> None:
    store = make_labels(tmp_path / "a", [Made([Clip(2)])], spec=label_spec(classes=()))
    (video,) = labelled_videos(store)
    assert video.first is not None and video.first.name == "class 2" and video.label_class is None
    assert class_names_of(store) == ("class 0", "class 1", "class 2")
    labels = ("walking", "walk", "flying", None)
    named = make_labels(tmp_path / "b", [Made([Clip(0)], plan={"label": name}) for name in labels])
    found = {v.video_id: v for v in labelled_videos(named)}
    assert [found[video_id(n)].label_class for n in range(4)] == ["walk", "walk", None, None]
    assert [found[video_id(n)].label for n in range(4)] == list(labels)


def test_parts_of_a_file_keep_their_times(tmp_path: Path) -> None:
    parts = [
        Made(
            [Clip(0)] * 2, plan={"uris": ["/film.mp4"], "start_us": a, "end_us": b, "duration_us": 9_000_000}
        )
        for a, b in ((1_000_000, 3_000_000), (3_000_000, 5_000_000))
    ]
    store = make_labels(tmp_path, parts)
    videos = sorted(with_segments(store, labelled_videos(store)), key=lambda v: v.begins_us)
    assert [(v.begins_us, v.ends_us) for v in videos] == [(1_000_000, 3_000_000), (3_000_000, 5_000_000)]
    assert all(v.is_part for v in videos)
    assert [(s.start_us, s.end_us) for v in videos for s in v.segments] == [
        (1_000_000, 3_000_000),
        (3_000_000, 5_000_000),
    ]


def test_what_was_amended_or_removed_counts_as_in_the_store(tmp_path: Path) -> None:
    store = make_labels(tmp_path, [Made([Clip(0)]), Made([Clip(0)], missing=1), Made(missing=2)])
    again = ShardStore.open(store.url)
    moved = [plan_row(n, 2, uris=[f"/new/{n}.mp4"], label="walking") for n in (1, 2)]
    again.add_plan(amendment(moved), after=1)
    found = {v.video_id: v for v in labelled_videos(again)}
    assert [found[video_id(n)].uri for n in range(3)] == ["/v/0.mp4", "/new/1.mp4", "/new/2.mp4"]
    assert [found[video_id(n)].label for n in range(3)] == ["walk", "walking", "walking"]
    remove(again, [video_id(0)])
    assert {v.video_id for v in labelled_videos(again)} == {video_id(1), video_id(2)}
