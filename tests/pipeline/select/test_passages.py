"""Passages of long videos, and policies that decide by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.select.passages import by_passage, passages_of, steady
from pipeline.select.policies import bases_of, grid_of, policy_of, score_of
from pipeline.select.scores import ClipScores, deferral
from schemas.policy import BY_PASSAGE, PolicySpec
from schemas.spec import fingerprint_of
from tests.pipeline.select.made_up import made_up

US = 1_000_000


def only(scores: ClipScores, clips: list[tuple[int, int]]) -> ClipScores:
    """The clips of a video (by number) that stand at a place (by number), 2 seconds each."""
    wanted = [
        (v, c) in clips
        for v, c in zip(scores.video_N.tolist(), (scores.start_us_N // (2 * US)).tolist(), strict=True)
    ]
    return scores.only(np.array(wanted))


def long_videos() -> ClipScores:
    known = made_up(6, most_clips=20, seed=3)
    assert known.scores.size_V.max() >= 12
    return known.scores


def test_a_gap_and_another_video_begin_a_passage() -> None:
    scores = long_videos()
    (long,) = np.flatnonzero(scores.size_V >= 12)[:1].tolist()
    other = (long + 1) % 6
    picked = sorted([(long, c) for c in (0, 1, 2, 5, 6, 11)] + [(other, 0)])
    passage_N = passages_of(only(scores, picked), 100, 2.0)
    names = dict(zip(picked, passage_N.tolist(), strict=True))
    assert len({names[long, c] for c in (0, 1, 2)}) == 1
    assert len({names[long, c] for c in (5, 6)}) == 1
    assert len(set(names.values())) == 4
    assert passage_N.tolist() == sorted(passage_N.tolist())


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [(100, [12]), (24, [12]), (23, [6, 6]), (9, [4, 4, 4]), (11, [4, 4, 4]), (14, [6, 6]), (1, [1] * 12)],
)
def test_long_ones_are_cut_into_equal_parts(seconds: float, sizes: list[int]) -> None:
    scores = long_videos()
    long = int(np.flatnonzero(scores.size_V >= 12)[0])
    twelve = only(scores, [(long, c) for c in range(12)])
    assert np.bincount(passages_of(twelve, seconds, 2.0)).tolist() == sizes


def test_the_view_of_the_same_clips_is_made_once() -> None:
    """What is computed of it, as scores in context, then serves all members of a policy."""
    scores = long_videos()
    first = by_passage(scores, 9, 2.0)
    assert by_passage(scores, 9, 2.0) is first and by_passage(scores, 11, 2.0) is not first
    other = replace(scores, start_us_N=scores.start_us_N * 4)
    assert by_passage(other, 9, 2.0).num_videos == len(scores)  # clips that are far apart


def test_no_part_is_longer_than_it_may_be() -> None:
    scores = long_videos()
    for seconds in (3.0, 5.0, 7.0, 11.0, 13.0):
        passage_N = passages_of(scores, seconds, 2.0)
        for p in range(passage_N.max() + 1):
            mine = np.flatnonzero(passage_N == p)
            assert scores.end_us_N[mine[-1]] - scores.start_us_N[mine[0]] <= max(seconds, 2.0) * US


def test_it_is_the_stride_that_says_whether_a_clip_is_missing() -> None:
    scores = long_videos()
    long = int(np.flatnonzero(scores.size_V >= 12)[0])
    # Clips of 4 seconds that begin every 2: one that is left out in between parts the others, though they touch.
    overlapping = replace(scores, end_us_N=scores.end_us_N + 2 * US)
    assert np.array_equal(passages_of(overlapping, 1e6, 2.0), scores.video_N)
    parted = only(overlapping, [(long, c) for c in (0, 1, 3, 4)])
    assert passages_of(parted, 1e6, 2.0).tolist() == [0, 0, 1, 1]
    # Clips of a second that begin every 2 follow each other.
    sparse = replace(scores, end_us_N=scores.end_us_N - US)
    assert np.array_equal(passages_of(sparse, 1e6, 2.0), scores.video_N)


@pytest.mark.parametrize("base", bases_of(BY_PASSAGE, ("margin", "gain-in-context"), 7.0, 2.0), ids=str)
def test_a_passage_is_decided_on_like_a_video(base: PolicySpec) -> None:
    scores = made_up(30, most_clips=20).scores
    passages = by_passage(scores, 7.0, 2.0)
    spec = grid_of(base, scores)[len(grid_of(base, scores)) // 2]
    inner = spec.model_copy(update={"passage": None, "stride": None})
    decided = policy_of(spec).select(scores)
    assert np.array_equal(decided.teacher_N, policy_of(inner).select(passages).teacher_N)
    assert 0 < decided.teacher_N.sum() < len(scores)
    assert np.array_equal(score_of(spec, scores), deferral(passages, base.score))
    assert not policy_of(spec).couples_videos and policy_of(spec).asks_student
    # Videos that are no longer than a passage are as they were.
    short = made_up(30, most_clips=3).scores
    assert np.array_equal(policy_of(spec).select(short).teacher_N, policy_of(inner).select(short).teacher_N)


def test_a_video_without_doubt_hides_no_passage_in_doubt() -> None:
    scores = long_videos()
    long = int(np.flatnonzero(scores.size_V >= 12)[0])
    film = only(scores, [(long, c) for c in range(12)])
    probs_NK = np.full((12, 4), 0.01, np.float32)
    probs_NK[:, 0] = 0.97
    probs_NK[6:9] = 0.25
    film = replace(film, probs_NK=probs_NK)
    spec = PolicySpec(kind="video-threshold", score="margin", threshold=-0.5)
    assert not policy_of(spec).select(film).teacher_N.any()
    by = policy_of(spec.model_copy(update={"passage": 6.0, "stride": 2.0})).select(film)
    assert np.flatnonzero(by.teacher_N).tolist() == [6, 7, 8]


def said(words: str, sure: float = 0.97) -> np.ndarray:
    """Probabilities of four classes; nan at a dot."""
    probs_NK = np.full((len(words), 4), (1 - sure) / 3)
    for i, c in enumerate(words):
        probs_NK[i, "abcd".index(c) if c != "." else 0] = sure
        if c == ".":
            probs_NK[i] = np.nan
    return probs_NK


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("aaaaaaaaaaaa", [12]),
        ("aaaaaabbbbbb", [6, 6]),
        ("aaaaabaaaaaa", [12]),
        ("aaaaabbaaaaa", [5, 2, 5]),
        ("aa..bbb..ccc", [2, 5, 5]),
        ("............", [12]),
        ("...a....b.bb", [4, 8]),
    ],
)
def test_a_passage_is_cut_where_one_thing_follows_another(words: str, parts: list[int]) -> None:
    scores = long_videos()
    long = int(np.flatnonzero(scores.size_V >= 12)[0])
    film = only(scores, [(long, c) for c in range(12)])
    found = np.bincount(steady(film, said(words))).tolist()
    if "." not in words.strip("."):
        assert found == parts
    # Where nothing was said a cut may lie anywhere between what was.
    assert len(found) == len(parts)
    heard = [i for i, c in enumerate(words) if c != "."]
    part_N, wanted_N = steady(film, said(words)), np.repeat(np.arange(len(parts)), parts)
    assert part_N[heard].tolist() == wanted_N[heard].tolist()
    unsure = steady(film, said(words, 0.3))
    assert np.bincount(unsure).tolist() == [12]


def test_passages_are_cut_each_by_itself() -> None:
    scores = long_videos()
    passages = by_passage(scores, 6.0, 2.0)
    rng = np.random.default_rng(0)
    word_NK = rng.dirichlet(np.full(4, 0.1), len(scores))
    part_N = steady(passages, word_NK)
    assert (np.diff(part_N) >= (np.diff(passages.video_N) > 0)).all()
    for p in range(passages.num_videos):
        mine = passages.video_N == p
        alone = steady(passages.only(mine), word_NK[mine])
        assert (part_N[mine] - part_N[mine][0]).tolist() == alone.tolist()


def test_what_fingerprints_are_made_of_is_as_it_was() -> None:
    spec = PolicySpec(kind="clip-threshold", score="gain", threshold=0.25)
    assert fingerprint_of(spec.identity()) == "0b16ea9fe8e9b58c1ac92dff26288130"
    other = spec.model_copy(update={"passage": 5.0, "stride": 2.0})
    assert fingerprint_of(other.identity()) != fingerprint_of(spec.identity())


def test_refused() -> None:
    for kind, settings in (
        ("budget", {"share": 0.1}),
        ("dense", {}),
        ("coarse-to-fine", {"strides": (2, 1), "exit_margin": 0.1}),
    ):
        with pytest.raises(ValidationError, match="does not decide by passages"):
            PolicySpec(kind=kind, passage=5.0, stride=2.0, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="wants the stride"):
        PolicySpec(kind="video-threshold", threshold=0.0, passage=5.0)
