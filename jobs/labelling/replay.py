"""Before a certificate is honoured: the student is asked again about some clips that it was judged on."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import pyarrow.compute as pc

from jobs.selecting.judged import StudentFolder
from pipeline.columns import matrix
from pipeline.draws import draws_of
from pipeline.known import hash_text, videos_in_force
from pipeline.runner import Runner
from pipeline.store.plan_files import video_of
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.label import LabelTask
from pipeline.tasks.replay import MOST_DIFFERENCE, Replayed, SaidBefore, replayed
from schemas.errors import RetryableError, SettingsError

log = logging.getLogger("locum.label")

NUM_CLIPS = 8


def replay(task: LabelTask, student: StudentFolder, targets: ShardStore, runner: Runner) -> Replayed:
    """Ask again about some of the calibration clips, where the run would.

    Raises
    ------
    SettingsError
        If the student says something else by now: the certificate does not speak of it.
    """
    said = _some(student, targets)
    try:
        found = runner.try_out(task, partial(replayed, said=said), apart=True)
    except RetryableError as e:
        log.warning("the certificate was not checked against what the student says here: %s", e)
        return Replayed(0)
    if not found.clips:
        log.warning(
            "the certificate was not checked against what the student says here: its calibration videos cannot be read"
        )
    if not found.agrees:
        raise SettingsError(
            f"the certificate is void here: of {found.where} the student says something else than when it was "
            f"certified (a probability differs by {found.difference:.3f}, {MOST_DIFFERENCE:g} is allowed). Another "
            "decoder, library or processor may be why: distil and calibrate here, or use a policy without a guarantee"
        )
    return found


def _some(student: StudentFolder, targets: ShardStore) -> tuple[SaidBefore, ...]:
    """Clips of the calibration split, drawn by hash, whose videos are still there."""
    rows = student.predictions("calibration")
    draw_N = draws_of(
        hash_text(rows["video_id"].combine_chunks()) + rows["start_us"].to_numpy().view(np.uint64), 0
    )
    rows = rows.take(np.sort(np.argsort(draw_N)[:NUM_CLIPS]))
    known = videos_in_force(targets)
    known = known.filter(pc.is_in(known["video_id"], value_set=rows["video_id"].combine_chunks()))
    videos = {row["video_id"]: video_of({**row, "clips": 1}, "video_id") for row in known.to_pylist()}
    keys = zip(rows["video_id"].to_pylist(), rows["start_us"].to_pylist(), strict=True)
    return tuple(
        SaidBefore(videos[video_id], start_us, logits_K)
        for (video_id, start_us), logits_K in zip(keys, matrix(rows["logits"]), strict=True)
        if video_id in videos
    )
