"""Made-up clips for tests of policies: videos of a few clips, with a student and a teacher that are sometimes right."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from pipeline.select.context_fit import ContextFit
from pipeline.select.known import Known
from pipeline.select.scores import ClipScores, clip_scores
from pipeline.uncertainty import softmax


def video_id(i: int) -> str:
    return hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest()


def made_up(num_videos: int = 40, num_classes: int = 4, seed: int = 0, most_clips: int = 9) -> Known:
    """Videos of 1 to ``most_clips`` clips, two to a group; the teacher is right more often than the student."""
    rng = np.random.default_rng(seed)
    clips_V = rng.integers(1, most_clips + 1, num_videos)
    label_V = rng.integers(0, num_classes, num_videos)
    ids, starts, labels = [], [], []
    for i, n in enumerate(clips_V.tolist()):
        ids += [video_id(i)] * n
        starts += [2_000_000 * j for j in range(n)]
        labels += [int(label_V[i])] * n
    label_N = np.array(labels)
    student, teacher = (rng.normal(0, 1, (len(ids), num_classes)).astype(np.float32) for _ in range(2))
    student[np.arange(len(ids)), label_N] += 1.0
    teacher[np.arange(len(ids)), label_N] += 2.0
    confidences = rng.random((2, len(ids))).astype(np.float32)
    scores = clip_scores(ids, np.array(starts), np.array(starts) + 2_000_000, student, *confidences)
    order = np.lexsort((np.array(starts), np.array(ids)))
    group_V = np.arange(num_videos, dtype=np.uint64) // 2
    known = Known(scores, softmax(teacher[order]), label_N[order], group_V)
    context = ContextFit(known).for_others()
    return replace(known, scores=replace(scores, context=context))


def part_of(scores: ClipScores, videos: list[int]) -> tuple[ClipScores, np.ndarray]:
    """The same clips of some videos alone, and which rows they were."""
    rows = np.flatnonzero(np.isin(scores.video_N, videos))
    part = ClipScores(
        video_N=np.unique(scores.video_N[rows], return_inverse=True)[1].astype(np.int64),
        start_us_N=scores.start_us_N[rows],
        end_us_N=scores.end_us_N[rows],
        ids_V=tuple(scores.ids_V[v] for v in sorted(videos)),
        hash_V=scores.hash_V[sorted(videos)],
        probs_NK=scores.probs_NK[rows],
        student_right_N=scores.student_right_N[rows],
        teacher_right_N=scores.teacher_right_N[rows],
        context=scores.context,
    )
    return part, rows
