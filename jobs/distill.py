"""Distil: train a student from cached targets and kept frames. No video is decoded, and the teacher is not run.

    snapshot of both stores  ->  training  ->  confidence heads  ->  predictions, metrics, an exported file

Running the same call again goes on after an interruption, and returns what is there once it is done.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jobs.distilling.inputs import Inputs, check_rows, fitting_inputs, known_to_teacher
from pipeline.distill.alone import alone_in
from pipeline.distill.export import export_student
from pipeline.distill.finish import Finished, finish, rows_for_heads
from pipeline.distill.loader import Augmentation, Loader
from pipeline.distill.loop import OnTrainProgress, Training, TrainState
from pipeline.distill.ranks import ALONE, Ranks
from pipeline.distill.snapshot import Snapshot, digest_of, take_snapshot
from pipeline.distill.splits import Role, roles
from pipeline.distill.stretches import one_of_each, stretches
from pipeline.distill.targets import TargetReader
from pipeline.models.distilled import Trunk
from pipeline.models.student import build_student, shows_features
from pipeline.models.teacher import pick_device
from pipeline.models.weights import cache_folder, state_digest
from pipeline.store.claim import Claim
from pipeline.store.document import library_versions, now
from pipeline.store.files import StoreFiles
from pipeline.uris import without_secrets
from schemas.errors import RetryableError
from schemas.student import TrainSpec

log = logging.getLogger("locum.distill")

STUDENT_FILE = "student.json"
CLAIM_FILE = "publishing.json"
_CLAIM_SECONDS = 2.0


@dataclass(frozen=True)
class DistilOptions:
    """``frames`` is the frame store; the one beside the targets where not given. ``num_threads`` changes rounding."""

    name: str = "student"
    frames: str | None = None
    device: str = "auto"
    num_threads: int | None = None


@dataclass(frozen=True)
class DistilReport:
    """Where the student is, and what ``student.json`` says of it."""

    url: str
    about: Mapping[str, Any]
    trained_now: bool


def distil(
    targets: Sequence[str],
    out: str,
    spec: TrainSpec = TrainSpec(),
    options: DistilOptions = DistilOptions(),
    *,
    on_progress: OnTrainProgress | None = None,
    ranks: Ranks = ALONE,
) -> DistilReport:
    """Train a student from the target stores ``targets`` into a folder of its own under ``out``.

    With several ``ranks`` all call this with the same arguments; the first one judges and writes.

    Raises
    ------
    SettingsError
        If the stores, the student and the settings do not fit one another; found before training.
    ModelError
        If training goes astray; checkpoints stand.
    RetryableError
        If another process trains this student now.
    """
    given = fitting_inputs(targets, spec, options.frames, ranks.world)
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    device = pick_device(options.device)
    model = build_student(given.student, given.shape_THW, seed=spec.seed, device=device)
    digest = ranks.told(digest_of(given.frames, given.targets) if ranks.is_first else None)
    fingerprint = spec.fingerprint(given.student, state_digest(model), digest)
    files = StoreFiles.below(out, f"{options.name}-{fingerprint[:12]}")
    work = _work_folder(files, fingerprint)
    if ranks.told(files.exists(STUDENT_FILE) if ranks.is_first else None):
        if ranks.is_first:
            shutil.rmtree(work, ignore_errors=True)  # of a run that ended just before
        return _made_before(files)
    ours = True
    with alone_in(work) if ranks.is_first else nullcontext():
        if ranks.world == 1 and files.exists(STUDENT_FILE):  # by another process, meanwhile
            return _made_before(files)
        snapshot = _snapshot(work / "snapshot", digest, given, spec, ranks)
        made = _train(model, given, spec, snapshot, work, device, on_progress, ranks)
        if made is not None:
            about = {"fingerprint": fingerprint, **_about(given, spec, snapshot, made)}
            ours = _publish(files, work, made.finished, about)
            shutil.rmtree(work, ignore_errors=True)
        ranks.told(True)  # the others leave when all is in place
    return replace(_made_before(files), trained_now=ours)


def _made_before(files: StoreFiles) -> DistilReport:
    return DistilReport(files.url, json.loads(files.read(STUDENT_FILE)), trained_now=False)


@dataclass(frozen=True)
class _Made:
    """What training came to."""

    state: TrainState
    finished: Finished
    clips: Mapping[str, int]
    parameters: int
    export_difference: float


def _train(
    model: torch.nn.Module,
    given: Inputs,
    spec: TrainSpec,
    snapshot: Snapshot,
    work: Path,
    device: torch.device,
    on_progress: OnTrainProgress | None,
    ranks: Ranks,
) -> _Made | None:
    """What it came to; None in all processes but the first."""
    reader = TargetReader(snapshot, spec.temperature, spec.multi_label, spec.teacher_weights or None)
    loader = Loader(reader, given.frames, ranks)
    rows_R = snapshot.rows_R
    held_out = (spec.fold, spec.folds) if spec.folds else None
    role_R = roles(
        snapshot.splits,
        rows_R["split"],
        rows_R["group"],
        snapshot.usable_R,
        spec.split_map,
        held_out=held_out,
    )
    if spec.label_weight == 1:  # there is nothing to learn from, or to judge by, where there is no label
        role_R[rows_R["label"] < 0] = Role.NONE
    check_rows(snapshot, role_R == Role.TRAIN, spec, ranks)
    known_R = known_to_teacher(snapshot, given.teachers, spec)
    of_heads_R = rows_for_heads(role_R, known_R, rows_R["group"], spec.heads_share)
    val_R, stretch_R = role_R == Role.VAL, None
    if spec.overlapping == "one":
        stretch_R = stretches(rows_R, given.teachers[0].clip)
        val_R = one_of_each(stretch_R, val_R, seed=0, epoch=0)  # the same ones after each epoch
    training = Training(
        model,
        given.student.input,
        spec,
        loader,
        role_R == Role.TRAIN,
        val_R,
        work / "checkpoints",
        device=device,
        augment=Augmentation(spec.shift, given.mirror),
        on_progress=on_progress,
        ranks=ranks,
        stretch_R=stretch_R,
    )
    state = training.run()
    if not ranks.is_first:
        return None
    with_features = shows_features(model, given.student, given.shape_THW)
    trunk = Trunk(model, given.student.input, has_features=with_features)
    finished = finish(
        trunk, loader, reader, role_R, of_heads_R, known_R, work / "predictions", device, seed=spec.seed
    )
    difference = export_student(finished.student, given.shape_THW, work / "student.pt2")
    clips = {role.name.lower(): int((role_R == role).sum()) for role in Role if role >= 0}
    return _Made(state, finished, clips, sum(p.numel() for p in model.parameters()), difference)


def _about(given: Inputs, spec: TrainSpec, snapshot: Snapshot, made: _Made) -> dict[str, Any]:
    """``student.json``, but for its fingerprint."""
    frames, student = given.frames, given.student
    return {
        "snapshot": snapshot.digest,
        "train": {**spec.model_dump(mode="json"), "student_weights": without_secrets(spec.student_weights)},
        "student": {**student.model_dump(mode="json"), "weights": without_secrets(student.weights)},
        "targets": [{"url": s.url, "fingerprint": s.document.fingerprint} for s in given.targets],
        "frames": {
            "url": frames.url,
            "fingerprint": frames.document.fingerprint,
            "spec": frames.document.spec,
        },
        "classes": list(given.student.classes),
        "input_shape": ["N", *given.shape_THW, 3],
        "parameters": made.parameters,
        "weights_sha256": hashlib.sha256(made.finished.weights).hexdigest(),
        "clips": dict(made.clips),
        "kept_clips": len(snapshot.rows_R),
        "usable_clips": int(snapshot.usable_R.sum()),
        "clips_without_frames": list(snapshot.about["clips_without_frames"]),
        "history": made.state.to_json()["history"],
        "best_epoch": made.state.best_epoch,
        "train_seconds": round(made.state.seconds, 3),
        **made.finished.to_json(),
        "exported_max_difference": made.export_difference,
        "versions": library_versions(),
        "made_at": now(),
    }


def _work_folder(files: StoreFiles, fingerprint: str) -> Path:
    """Where checkpoints lie meanwhile: within the student's folder, or a cache of this machine where that is remote."""
    return Path(files.at("work")) if files.is_local else cache_folder().with_name("distill") / fingerprint


def _snapshot(folder: Path, digest: str, given: Inputs, spec: TrainSpec, ranks: Ranks) -> Snapshot:
    """The snapshot in a folder of this machine: the one that is there, or one that is taken now."""

    def there(place: Path) -> Snapshot | None:
        found = Snapshot(place) if (place / "snapshot.json").exists() else None
        return found if found is not None and found.digest == digest else None

    def take(place: Path) -> Snapshot:
        return take_snapshot(
            place,
            given.frames,
            given.targets,
            classes=spec.classes,
            label_map=spec.label_map,
            use_labels=spec.use_labels,
        )

    if ranks.is_first:
        found = there(folder) or take(folder)
        _say_what_is_left_out(found)
        if found.digest != digest:
            raise RetryableError(f"{given.frames.url}: the stores changed at this moment; run again")
        ranks.told(True)
        return found
    ranks.told(None)  # the first one has it by now, and this process may be on its machine
    mine = folder.with_name(f"{folder.name}-{ranks.rank}")
    return there(folder) or there(mine) or take(mine)


def _say_what_is_left_out(snapshot: Snapshot) -> None:
    for store, n in zip(snapshot.about["targets"], snapshot.about["clips_without_frames"], strict=True):
        if n:
            log.warning("of %d clips of %s no frames are kept: they are left out", n, store["url"])
    shown = int(snapshot.rows_R["shown"].sum())
    if left := shown - int(snapshot.usable_R.sum()):
        log.warning("%d of %d kept clips have no targets of every teacher: they are left out", left, shown)


def _publish(files: StoreFiles, work: Path, done: Finished, about: Mapping[str, Any]) -> bool:
    """Put the student's files in place, ``student.json`` last. Where it is made on two machines at once, on an object
    store, one of them does, and the other's is given up (False): theirs must not be mixed."""
    if files.is_local:  # and ours alone: see `alone_in`
        _put(files, work, done, about)
        return True
    waiting = False
    while (claim := Claim.take(files, CLAIM_FILE)) is None:
        if files.exists(STUDENT_FILE):
            return False
        if not waiting:
            log.warning(
                "another process is putting this student in place, or died at it: waiting for %s", files.url
            )
        waiting = True
        time.sleep(_CLAIM_SECONDS)
    try:
        if files.exists(STUDENT_FILE):
            return False
        _put(files, work, done, about, claim)
        return True
    finally:
        claim.give_back()


def _put(
    files: StoreFiles, work: Path, done: Finished, about: Mapping[str, Any], claim: Claim | None = None
) -> None:
    """Raises RetryableError where another process took the ``claim`` over."""
    bodies: dict[str, Callable[[], bytes]] = {
        "student.safetensors": lambda: done.weights,
        "student.pt2": (work / "student.pt2").read_bytes,
        **{f"predictions/{p.name}": p.read_bytes for p in sorted((work / "predictions").glob("*.parquet"))},
        STUDENT_FILE: lambda: json.dumps(about, indent=1).encode(),
    }
    for name, body in bodies.items():
        if claim is not None and not claim.renew():
            raise RetryableError(f"{files.url}: another process puts this student in place; run again")
        files.put_over(name, body())
