"""Confidence in context: what a clip's video says of it, and what is fitted to that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.metrics import auroc
from pipeline.select.context import Context, inputs, merged, pooled
from pipeline.select.context_fit import PENALTIES, ContextFit
from pipeline.select.known import Known
from pipeline.select.scores import SCORES, ClipScores, clip_scores, deferral
from pipeline.uncertainty import softmax
from schemas.context import ContextHead, ContextHeads
from tests.pipeline.select.made_up import made_up, part_of, video_id

US = 1_000_000


def world(num_videos: int = 300, seed: int = 0) -> Known:
    """The student errs by chance, never in most clips of a video, and is as sure of it where it is wrong."""
    rng = np.random.default_rng(seed)
    ids, starts, labels, said = [], [], [], []
    for v in range(num_videos):
        label, clips = int(rng.integers(4)), int(rng.integers(3, 8))
        wrong = rng.permutation(clips) < rng.integers(0, clips // 2 + 1)
        for c in range(clips):
            ids.append(video_id(v))
            starts.append(c * 2 * US)
            labels.append(label)
            said.append((label + int(rng.integers(1, 4))) % 4 if wrong[c] else label)
    label_N, said_N = np.array(labels), np.array(said)
    student_NK = rng.normal(0, 0.3, (len(ids), 4)).astype(np.float32)
    student_NK[np.arange(len(ids)), said_N] += 3.0
    teacher_NK = rng.normal(0, 0.3, (len(ids), 4)).astype(np.float32)
    teacher_NK[np.arange(len(ids)), label_N] += 3.0
    order = np.lexsort((np.array(starts), np.array(ids)))
    sure_N = softmax(student_NK).max(axis=1)
    scores = clip_scores(
        ids, np.array(starts), np.array(starts) + 2 * US, student_NK, sure_N, np.full(len(ids), 0.9, "f4")
    )
    group_V = np.arange(num_videos, dtype=np.uint64) // 2
    return Known(scores, softmax(teacher_NK[order]), label_N[order], group_V)


def with_context(known: Known, context: Context) -> ClipScores:
    return replace(known.scores, context=context)


def test_what_a_video_says_tells_wrong_clips_of_other_videos() -> None:
    fit, others = ContextFit(world(seed=0)), world(seed=1)
    scores = with_context(others, fit.for_others())
    wrong_N = others.student_right_N == 0
    alone, in_context = (auroc(deferral(scores, s), wrong_N) for s in ("msp", "confidence-in-context"))
    assert in_context > 0.95 > 0.6 > alone
    foretold = scores.rights_in_context_N[0]
    assert foretold.mean() == pytest.approx(others.student_right_N.mean(), abs=0.03)  # calibrated


def test_doubt_about_a_video_is_of_the_video() -> None:
    known = made_up(400, most_clips=5)
    other = made_up(400, most_clips=5, seed=9)
    scores = with_context(other, ContextFit(known).for_others())
    value_N = deferral(scores, "video-in-context")
    for v in range(0, 400, 40):
        assert np.ptp(value_N[scores.video_N == v]) == 0
    said_V = pooled(scores)[0].argmax(axis=1)
    wrong_V = said_V != other.label_V
    first_V = np.searchsorted(scores.video_N, np.arange(400))
    assert value_N[first_V].mean() == pytest.approx(wrong_V.mean(), abs=0.05)  # calibrated
    mean_V = np.bincount(scores.video_N, deferral(scores, "margin")) / scores.size_V
    assert auroc(value_N[first_V], wrong_V) > auroc(mean_V, wrong_V) + 0.02


def test_inputs_of_two_videos() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    scores = clip_scores(
        [video_id(0)] * 3 + [video_id(1)],
        np.array([0, 2, 4, 0]) * US,
        np.array([2, 4, 6, 2]) * US,
        np.log(probs).astype(np.float32),
        *np.zeros((2, 4), np.float32),
    )
    first = video_id(0) < video_id(1)
    x = inputs(scores)[[0, 1, 2, 3] if first else [1, 2, 3, 0]]

    def logit(p: float) -> float:
        return float(np.log(p / (1 - p)))

    pooled = probs[:3].mean(axis=0)
    assert x.shape == (4, 14)
    assert x[:, 0] == pytest.approx([logit(p) for p in (0.7, 0.8, 0.6, 0.6)], abs=1e-5)
    assert x[:, 1] == pytest.approx([0.5, 0.7, 0.3, 0.4], abs=1e-6)
    assert x[:, 3].tolist() == [1, 0, 1, 1]  # says what its video says
    assert x[1, 4] == pytest.approx(logit(pooled[1]), abs=1e-5)
    assert x[1, 5] == pytest.approx(logit((0.2 + 0.3) / 2), abs=1e-5)
    assert x[3, 5] == pytest.approx(logit(0.6), abs=1e-5)  # no others
    assert x[:3, 6] == pytest.approx(pooled.max(), abs=1e-6) and x[3, 6] == pytest.approx(0.6, abs=1e-6)
    assert x[:, 8] == pytest.approx(np.log([3, 3, 3, 1]))
    assert x[:3, 12] == pytest.approx([logit(0.7), logit(0.2), logit(0.1)], abs=1e-5)  # of the clip before
    assert x[:3, 13] == pytest.approx([logit(0.1), logit(0.3), logit(0.6)], abs=1e-5)  # of the clip after


@pytest.mark.parametrize("score", [s for s in SCORES if s.endswith("in-context")])
def test_a_video_has_the_same_scores_alone_and_among_others(score: str) -> None:
    known = made_up()
    context = ContextFit(known).for_others()
    scores = with_context(known, context)
    for videos in ([3], [0, 7, 8, 31]):
        part, rows = part_of(scores, videos)
        assert np.array_equal(deferral(replace(part, context=context), score), deferral(scores, score)[rows])


def test_clips_that_were_not_looked_at_say_nothing() -> None:
    known = made_up()
    scores = with_context(known, ContextFit(known).for_others())
    looked_N = np.arange(len(scores)) % 3 != 1
    seen = scores.seen(looked_N)
    value_N = deferral(seen, "gain-in-context")
    assert np.array_equal(np.isnan(value_N), ~looked_N)
    assert np.array_equal(value_N[looked_N], deferral(scores.only(looked_N), "gain-in-context"))
    nothing = scores.seen(np.zeros(len(scores), np.bool_))
    assert np.isnan(deferral(nothing, "gain-in-context")).all()


def test_what_one_chooses_on_is_not_judged_by_heads_that_learnt_it() -> None:
    known = made_up(300)
    before = with_context(known, ContextFit(known).for_these()).rights_in_context_N[0]
    mine_N = known.group_V[known.scores.video_N] == 7
    label_N = known.label_N.copy()
    label_N[mine_N] = (label_N[mine_N] + 1) % 4
    other = replace(known, label_N=label_N)
    fit, changed = ContextFit(known), ContextFit(other)
    assert [r.penalty for r in fit._three] == [r.penalty for r in changed._three]
    after = with_context(other, changed.for_these()).rights_in_context_N[0]
    assert np.array_equal(before[mine_N], after[mine_N])
    assert not np.array_equal(before[~mine_N], after[~mine_N])
    assert fit.heads != changed.heads


def test_without_labels_the_teacher_is_taken_at_its_word() -> None:
    known = world(80)
    blind = replace(known, label_N=np.full(len(known.label_N), -1))
    said = with_context(blind, ContextFit(blind).for_others()).rights_in_context_N
    own_N = known.scores.probs_NK.argmax(axis=1)
    surely_N = known.teacher_NK[np.arange(len(own_N)), own_N]
    assert np.corrcoef(said[0], surely_N)[0, 1] > 0.9
    assert said[1].mean() == pytest.approx(known.teacher_NK.max(axis=1).mean(), abs=0.02)


def test_a_few_clips_that_are_all_right_make_no_certainty() -> None:
    known = world(4)
    label_N = known.scores.probs_NK.argmax(axis=1)
    right = replace(known, label_N=label_N, teacher_NK=known.scores.probs_NK)
    student_N, teacher_N, video_N = with_context(right, ContextFit(right).for_others()).rights_in_context_N
    assert student_N.min() > 0.9 and student_N.max() < 0.999 and teacher_N.max() < 0.999
    assert video_N.min() > 0.5 and video_N.max() < 0.999  # of four videos
    one = ContextFit(replace(right, group_V=np.zeros(4, np.uint64)))
    assert np.isfinite(with_context(right, one.for_these()).rights_in_context_N[0]).all()


def test_labels_of_one_group_are_no_ground_for_slopes() -> None:
    known = made_up(120, most_clips=3)
    one = known.group_V == 3
    label_N = np.where(one[known.scores.video_N], known.label_N, -1)
    few = replace(known, label_N=label_N)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.select.context_fit.enough_labels", lambda *_: True)
        fit = ContextFit(few)
    assert {r.penalty for r in fit._three} == {PENALTIES[-1]}
    for value_N in with_context(few, fit.for_these()).rights_in_context_N:
        mine_N = value_N[one[known.scores.video_N]]
        assert np.ptp(mine_N) < 1e-6  # by heads that saw none of them
        assert np.isfinite(value_N).all()


def test_a_group_that_is_too_large_leaves_the_others() -> None:
    known = world(120)
    large = replace(known, group_V=np.where(np.arange(120) < 60, 7, known.group_V).astype(np.uint64))
    size = int((large.group_V[large.scores.video_N] == 7).sum())
    for most in (size - 1, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.select.context_fit.MOST_CLIPS", most)
            for seed in range(6):
                fit = ContextFit(large, seed)
                kept = large.group_V[large.scores.video_N][fit._three[0].kept_R]
                assert 7 not in kept and 0 < len(kept) <= most
                assert len(np.unique(kept)) == (30 if most > 10 else len(np.unique(kept)))
    one = replace(known, group_V=np.zeros(120, np.uint64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.select.context_fit.MOST_CLIPS", 50)
        assert ContextFit(one)._three[0].kept_R.sum() == 50


def test_noise_is_not_learnt() -> None:
    known = made_up(200)
    rng = np.random.default_rng(1)
    label_N = np.where(rng.random(len(known.label_N)) < 0.5, known.scores.probs_NK.argmax(axis=1), 0)
    fit = ContextFit(replace(known, label_N=rng.permutation(label_N)))
    assert fit._three[0].penalty >= PENALTIES[-2]


def test_students_of_folds_have_heads_of_their_own() -> None:
    first, second = made_up(20), made_up(30, seed=5)
    contexts = [ContextFit(first).for_others(), ContextFit(second).for_these()]
    ids = list(first.scores.ids_V)
    both = merged([(contexts[0], ids[:10]), (contexts[1], ids[10:])])
    for context, videos in ((contexts[0], range(10)), (contexts[1], range(10, 20))):
        part, _ = part_of(first.scores, list(videos))
        mine, other = (deferral(replace(part, context=c), "teacher-in-context") for c in (both, context))
        assert np.array_equal(mine, other)


def test_heads_of_other_inputs_are_refused() -> None:
    heads = ContextFit(made_up(10)).heads
    assert ContextHeads.model_validate_json(heads.model_dump_json()) == heads
    with pytest.raises(ValueError, match="calibrate anew"):
        ContextHeads(**{**heads.model_dump(), "epoch": heads.epoch + 1})


def test_refused() -> None:
    with pytest.raises(ValueError, match="wants heads that were fitted"):
        deferral(world(2).scores, "gain-in-context")
    with pytest.raises(ValueError, match="different numbers of inputs"):
        ContextHead(mean=(0.0,), std=(1.0, 1.0), knots=((0.0, 1.0),), slopes=((0, 0, 0),), offset=0.0)
