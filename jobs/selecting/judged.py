"""A trained student's folder, and what it and its teacher said of the same clips."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.distill import STUDENT_FILE
from jobs.distilling.inputs import open_kind
from pipeline.known import videos_in_force
from pipeline.metrics import enough_labels
from pipeline.select.joined import Judged, joined
from pipeline.select.temperature import fit_temperature
from pipeline.store.files import StoreFiles
from pipeline.store.kinds import TARGETS
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError
from schemas.targets import TargetSpec

log = logging.getLogger("locum.select")

SPLITS = ("val", "calibration", "test")


@dataclass(frozen=True)
class StudentFolder:
    """What `jobs.distill` wrote. ``about`` is its ``student.json``."""

    files: StoreFiles
    about: Mapping[str, Any]

    @property
    def url(self) -> str:
        return self.files.url

    @property
    def fingerprint(self) -> str:
        return str(self.about["fingerprint"])

    def predictions(self, split: str) -> pa.Table:
        """What it says of the clips of a split.

        Raises
        ------
        SettingsError
            If it had none.
        """
        try:
            data = self.files.read(f"predictions/{split}.parquet")
        except FileNotFoundError:
            raise SettingsError(
                f"{self.url} has no predictions of {split}: its targets have no such split"
            ) from None
        return pq.read_table(io.BytesIO(data))


def open_student(url: str) -> StudentFolder:
    """The student in a folder.

    Raises
    ------
    SettingsError
        If there is none, or one that cannot be joined with a teacher yet.
    """
    files = StoreFiles(url)
    try:
        about = json.loads(files.read(STUDENT_FILE))
    except FileNotFoundError:
        raise SettingsError(f"{files.url} is no student: it has no {STUDENT_FILE}") from None
    except ValueError as e:
        raise SettingsError(f"{files.url}/{STUDENT_FILE}: not JSON: {e}") from e
    if not isinstance(about, dict) or not {"fingerprint", "targets", "train", "clips"} <= about.keys():
        raise SettingsError(f"{files.url}/{STUDENT_FILE} is not what `locum distill` writes")
    if len(about["targets"]) != 1:
        raise SettingsError(f"{files.url} learnt from {len(about['targets'])} teachers: one is wanted here")
    if about["train"]["multi_label"]:
        raise SettingsError(
            f"{files.url} is multi-label: clips are divided between models for one class a clip only"
        )
    return StudentFolder(files, about)


def targets_of(student: StudentFolder, url: str | None = None) -> ShardStore:
    """The target store that a student learnt from, where it was then or where it is now.

    Raises
    ------
    SettingsError
        If it is another, or does not hold all logits.
    """
    said = student.about["targets"][0]
    store = open_kind(url or said["url"], TARGETS.name)
    if store.document.fingerprint != said["fingerprint"]:
        raise SettingsError(
            f"{store.url} ({store.document.fingerprint}) is not what {student.url} learnt from ({said['fingerprint']})"
        )
    if TargetSpec(**store.document.spec).logits.top_k:
        raise SettingsError(
            f"{store.url} keeps some logits of each clip only: all are needed to pool the teacher's words"
        )
    return store


def judged(student: StudentFolder, split: str, targets: ShardStore) -> Judged:
    """What both said of the clips of a split.

    Raises
    ------
    SettingsError
        If the student has said nothing of it, or there are no targets of it any more.
    """
    predictions = student.predictions(split)
    found, missing = joined(predictions, logits_of(targets, predictions["video_id"]))
    if missing:
        log.warning("of %d of %d clips there is no target any more: left out", missing, predictions.num_rows)
    return found


def to_choose_on(student: StudentFolder, calibration: Judged, targets: ShardStore) -> Judged:
    """Clips of validation, and those of calibration that the confidence heads were fitted on: what policies are chosen
    on, and what they go by is fitted on.

    Raises
    ------
    SettingsError
        If the teacher was trained on all of them.
    """
    found = calibration.where(calibration.fitted_N)
    if student.about["clips"].get("val"):
        found = judged(student, "val", targets).and_(found)
    found = found.where(~found.known_to_teacher_N)
    if not len(found):
        raise SettingsError(
            f"{student.url}: all held-out videos are ones that the teacher was trained on, and say nothing of where it "
            "can be trusted"
        )
    return found


def learnt_from(student: StudentFolder, targets: ShardStore) -> pa.Array:
    """Ids of the target store's videos that the student, its confidence heads, the policies or the teacher were made
    from, or may have been: all but those of the test split, and those of calibration that are left for certificates."""
    held_out = []
    for split in ("calibration", "test"):
        if student.about["clips"].get(split):
            said = student.predictions(split)
            kept = pc.invert(pc.or_(said["fitted"], said["known_to_teacher"]))
            held_out.append(pc.unique(said.filter(kept)["video_id"]))
    ids = videos_in_force(targets)["video_id"].combine_chunks()
    if not held_out:
        return ids
    return ids.filter(pc.invert(pc.is_in(ids, value_set=pa.concat_arrays(held_out))))


def temperatures(student: StudentFolder, calibration: Judged) -> tuple[float, float]:
    """Those of the student and the teacher, from the clips on which the confidence heads were fitted. Without labels
    (or with few, as for the heads) the student's is fitted to what the teacher says, and the teacher's is 1."""
    on = calibration.where(calibration.fitted_N)
    if not len(on):
        raise SettingsError(
            f"{student.url}: no clip is left of those that its confidence heads were fitted on"
        )
    if enough_labels(int((on.label_N >= 0).sum()), len(on)):
        return fit_temperature(on.student_NK, on.label_N), fit_temperature(on.teacher_NK, on.label_N)
    return fit_temperature(on.student_NK, on.teacher_NK.argmax(axis=1)), 1.0


def logits_of(targets: ShardStore, video_ids: pa.ChunkedArray) -> pa.Table:
    """What the teacher said of the clips of some videos: ``video_id``, ``start_us``, ``logits``, ``damaged``.

    Raises
    ------
    SettingsError
        If the store is empty.
    """
    wanted = pc.unique(video_ids)
    columns = ["video_id", "start_us", "logits", "damaged"]
    parts = [t.filter(pc.is_in(t["video_id"], value_set=wanted)) for t in scan(targets, columns)]
    if not parts:
        raise SettingsError(f"{targets.url} is empty")
    return pa.concat_tables(parts)
