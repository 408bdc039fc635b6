"""What should be looked at first: a total order, by rules that each say why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labelled import LabelledVideo, Scored, class_name, class_names
from pipeline.review import CLOSE_MARGIN, KINDS, LOW_PROBABILITY, in_order, review

NAMES = ("walk", "run", "sit")
names = st.none() | st.sampled_from(NAMES)


@st.composite
def videos(draw: st.DrawFn) -> LabelledVideo:
    order = draw(st.permutations(NAMES))
    scores = sorted(draw(st.lists(st.floats(0, 1), min_size=1, max_size=3)), reverse=True)
    ranked = tuple(Scored(n, p) for n, p in zip(order, scores, strict=False))
    return LabelledVideo(
        uri=f"/v/{draw(st.integers(0, 9))}.mp4",
        video_id=f"{draw(st.integers(0, 2**40)):032x}",
        ranked=ranked if draw(st.booleans()) else (),
        label_class=draw(names),
        student=draw(names),
        teacher=draw(names),
        audit=draw(names),
        clips=draw(st.integers(0, 3)),
        damaged=draw(st.integers(0, 1)),
        missing=draw(st.integers(0, 1)),
    )


@given(st.lists(videos(), max_size=12, unique_by=lambda v: v.video_id), st.randoms())
def test_the_order_is_one_of_the_videos_whatever_order_they_come_in(
    some: list[LabelledVideo], random: object
) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for order in ("review", "uri"):
        found = in_order(some, order)  # type: ignore[arg-type]
        assert found == in_order(shuffled, order)  # type: ignore[arg-type]
        assert sorted(v.video_id for v, _ in found) == sorted(v.video_id for v in some)
    ranks = [(KINDS.index(r.kind), v.margin) for v, r in in_order(some, "review")]
    assert ranks == sorted(ranks)
    assert [v.uri for v, _ in in_order(some, "uri")] == sorted(v.uri for v in some)


@given(videos())
def test_the_first_rule_that_holds_is_the_kind(video: LabelledVideo) -> None:
    kind, first = review(video).kind, video.first
    assert review(video).reason
    if not video.clips:
        assert kind == "unreadable"
    elif first is None:
        assert kind in ("models", "unlabelled")
    elif video.audit not in (None, first.name):
        assert kind == "audit"
    elif None not in (video.student, video.teacher) and video.student != video.teacher:
        assert kind == "models"
    elif video.label_class not in (None, first.name):
        assert kind == "manifest"
    elif video.damaged or video.missing:
        assert kind == "damaged"
    elif len(video.ranked) > 1 and video.margin < CLOSE_MARGIN:
        assert kind == "close"
    else:
        assert kind == ("unsure" if first.probability < LOW_PROBABILITY else "sure")


def video(**changes: object) -> LabelledVideo:
    fields: dict[str, object] = {"uri": "/v.mp4", "video_id": "0" * 32, "clips": 4}
    fields["ranked"] = (Scored("walk", 0.9), Scored("run", 0.1))
    return LabelledVideo(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "nothing speaks against it: walk 0.90, run 0.10"),
        (
            {"audit": "sit", "student": "walk", "teacher": "sit"},
            "labelled walk, the dense teacher says sit",
        ),
        (
            {"student": "walk", "teacher": "run", "missing": 2},
            "the student says walk, the teacher run; 2 missing of 6 clips",
        ),
        ({"label": "sitting", "label_class": "sit"}, "labelled walk, the manifest says sit"),
        ({"damaged": 1, "missing": 2}, "1 damaged and 2 missing of 6 clips"),
        ({"ranked": ()}, "nobody was asked about it"),
        (
            {"ranked": (Scored("run", 0.41), Scored("sit", 0.39))},
            "a close call: run 0.41, sit 0.39",
        ),
        ({"ranked": (Scored("run", 0.45), Scored("sit", 0.2))}, "no class is likely: run 0.45, sit 0.20"),
        (
            {"ranked": (), "clips": 0, "missing": 3, "failure": "open: NotAVideo"},
            "could not be read (open: NotAVideo)",
        ),
    ],
)
def test_reasons_in_words(changes: dict[str, object], reason: str) -> None:
    assert review(video(**changes)).reason == reason


def test_a_label_that_is_no_class_is_not_held_against_a_video() -> None:
    assert review(video(label="no class of the teacher's")).kind == "sure"


def test_names_of_classes() -> None:
    assert class_name((), 3) == "class 3" and class_name(NAMES, 1) == "run"
    assert class_names((), 2) == ("class 0", "class 1")
