"""The students of a data set: every arm, seed and fold. One that is there is not trained again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.distill import say, told
from bench.distill_arms.probe import Key, write_targets
from bench.evidence.recipe import DISTILLED, Recipe, frames_in, targets_in, the_only
from jobs.distill import DistilOptions, distil
from pipeline.models.exported_student import ExportedStudent
from pipeline.models.weights import fetch
from pipeline.sheets import decode_sheet
from pipeline.store.read import scan
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError
from schemas.model import ModelRef
from schemas.targets import TargetSpec

_BATCH = 64


@dataclass(frozen=True)
class Arm:
    """Students of one kind: of each seed those of all folds. ``why_not`` says why there are none."""

    name: str
    urls: tuple[tuple[str, ...], ...] = ()
    seconds: float = 0.0
    """Of training, all of them."""
    parameters: int = 0
    why_not: str = ""


def train_all(recipe: Recipe, folder: Path, out: Path, seeds: int, threads: int | None) -> dict[str, Arm]:
    """All arms, from the stores in ``folder``, into ``out``."""
    arms: dict[str, Arm] = {}
    for name in recipe.names:
        try:
            arms[name] = _arm(recipe, name, folder, out, seeds, threads, arms)
        except _Missing as e:
            say(f"{name}: left out: {e}")
            arms[name] = Arm(name, why_not=str(e))
    return arms


class _Missing(Exception):
    """What an arm wants is not there; the others go on."""


def _arm(
    recipe: Recipe, name: str, folder: Path, out: Path, seeds: int, threads: int | None, made: dict[str, Arm]
) -> Arm:
    short = "".join(c if c.isalnum() else "-" for c in name.split("(")[0].strip().lower())
    options = DistilOptions(short, frames_in(folder), num_threads=threads)
    urls, seconds, parameters = [], 0.0, 0
    for seed in recipe.seeds(name, seeds):
        of_seed = []
        for fold in range(recipe.folds or 1):
            say(f"{recipe.title}: {name}, seed {seed}" + (f", fold {fold}" if recipe.folds else ""))
            targets = _targets(recipe, name, folder, out, seed, fold, made)
            spec = recipe.spec(name, seed, fold)
            try:
                report = distil(targets, str(out), spec, options, on_progress=told)
            except SettingsError as e:
                if name == DISTILLED:
                    raise
                raise _Missing(str(e)) from e
            of_seed.append(report.url)
            seconds += report.about["train_seconds"]
            parameters = report.about["parameters"]
        urls.append(tuple(of_seed))
    return Arm(name, tuple(urls), seconds, parameters)


def _targets(
    recipe: Recipe, name: str, folder: Path, out: Path, seed: int, fold: int, made: dict[str, Arm]
) -> list[str]:
    own = targets_in(folder, fold)
    settings = recipe.arms.get(name, {})
    if (further := settings.get("further")) is not None:
        other = the_only(folder, further.format(fold=fold))
        if other is None:
            raise _Missing(f"{folder} has no {further.format(fold=fold)}")
        return [own, str(other)]
    if (source := settings.get("own")) is not None:
        if not made[source].urls:
            raise _Missing(f"there is no student {source!r}")
        return [own_words(made[source].urls[seed - 1][fold], own, frames_in(folder), out / "own")]
    return [own]


def own_words(student: str, targets: str, frames: str, out: Path) -> str:
    """A target store of what a student says of all kept clips, beside the teacher's: self-distillation learns from it
    as from any teacher's."""
    about = json.loads((Path(student) / "student.json").read_text())
    program = fetch(f"{student}/student.pt2")
    teacher_store = ShardStore.open(targets)
    spec = TargetSpec(**teacher_store.document.spec)
    ref = ModelRef(
        factory="pipeline.models.exported_student:ExportedStudent",
        num_classes=len(about["classes"]),
        classes=tuple(about["classes"]),
        code="logits of an exported student, written by bench.evidence",
        weights_sha256=program.sha256,
    )
    spec = spec.model_copy(update={"teacher": ref})
    run = ExportedStudent(f"{student}/student.pt2", program.sha256, device="cpu")
    said: dict[Key, np.ndarray] = {}
    for keys, frames_NTHWC in _kept(ShardStore.open(frames)):
        logits_NK, _ = run(frames_NTHWC)
        said |= zip(keys, logits_NK, strict=True)
    return write_targets(teacher_store, str(out), spec, said).url


def _kept(store: ShardStore) -> Iterator[tuple[list[Key], np.ndarray]]:
    num_frames = int(store.document.spec["clip"]["num_frames"])
    for table in scan(store, ["video_id", "start_us", "sheet"]):
        for batch in table.to_batches(max_chunksize=_BATCH):
            rows = batch.to_pylist()
            frames = np.stack([decode_sheet(row["sheet"], num_frames) for row in rows])
            yield [(row["video_id"], row["start_us"]) for row in rows], frames
