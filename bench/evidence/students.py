"""The students of a data set: every arm, seed and fold. One that is there is not trained again."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.distill import say, told
from bench.distill_arms.probe import Key, write_targets
from bench.evidence.recipe import DISTILLED, Recipe, frames_in, targets_in, the_only
from jobs.distill import DistilOptions, distil
from pipeline.models.exported_student import ExportedStudent
from pipeline.models.memory import keep_freed_memory
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


def train_all(
    recipe: Recipe, folder: Path, out: Path, seeds: int, *, threads: int | None, jobs: int
) -> dict[str, Arm]:
    """All arms, from the stores in ``folder``, into ``out``; so many students at a time, each in a process."""
    made: dict[str, Arm] = {}
    with _workers(jobs) as run:
        for others_own in (False, True):  # who learns from the words of others comes after them
            names = [n for n in recipe.names if ("own" in recipe.arms.get(n, {})) == others_own]
            waiting = {name: _begun(recipe, name, folder, out, seeds, threads, made, run) for name in names}
            made |= {name: _arm(name, students) for name, students in waiting.items()}
    return {name: made[name] for name in recipe.names}


def _begun(
    recipe: Recipe,
    name: str,
    folder: Path,
    out: Path,
    seeds: int,
    threads: int | None,
    made: Mapping[str, Arm],
    run: Callable[[_Job], Waiting],
) -> list[list[Waiting]]:
    """An arm's students, of each seed those of all folds."""

    def begin(seed: int, fold: int) -> Waiting:
        own = _own(recipe, name, seed, fold, made)
        return run(_Job(recipe, name, seed, fold, folder, out, threads, own))

    return [[begin(seed, fold) for fold in range(recipe.folds or 1)] for seed in recipe.seeds(name, seeds)]


@dataclass(frozen=True)
class _Job:
    """A student to train; ``own`` is the one whose words it learns from, where it does that."""

    recipe: Recipe
    arm: str
    seed: int
    fold: int
    folder: Path
    out: Path
    threads: int | None
    own: str | None

    def __str__(self) -> str:
        return f"{self.recipe.title}: {self.arm}, seed {self.seed}" + (
            f", fold {self.fold}" if self.recipe.folds else ""
        )


@dataclass(frozen=True)
class _Made:
    url: str
    seconds: float
    parameters: int


Waiting = Callable[[], "_Made"]
"""Waits for a student, and raises what went wrong with it."""


@contextmanager
def _workers(jobs: int) -> Iterator[Callable[[_Job], Waiting]]:
    if jobs == 1:

        def now(job: _Job) -> Waiting:
            made: Future[_Made] = Future()
            try:
                made.set_result(_train(job))
            except SettingsError as e:
                if job.arm == DISTILLED:
                    raise
                made.set_exception(e)
            return made.result

        yield now
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        try:
            yield lambda job: pool.submit(_train, job).result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _arm(name: str, students: list[list[Waiting]]) -> Arm:
    try:
        made = [[student() for student in of_seed] for of_seed in students]
    except SettingsError as e:
        if name == DISTILLED:
            raise
        say(f"{name}: left out: {e}")
        return Arm(name, why_not=str(e))
    every = [student for of_seed in made for student in of_seed]
    return Arm(
        name,
        tuple(tuple(student.url for student in of_seed) for of_seed in made),
        sum(student.seconds for student in every),
        every[0].parameters if every else 0,
    )


def _own(recipe: Recipe, name: str, seed: int, fold: int, made: Mapping[str, Arm]) -> str | None:
    source = recipe.arms.get(name, {}).get("own")
    urls = made[source].urls if source is not None else ()
    return urls[seed - 1][fold] if urls else None


def _train(job: _Job) -> _Made:
    """One student, or the one that is there.

    Raises
    ------
    SettingsError
        If what it is to learn from is not there, or does not fit.
    """
    recipe = job.recipe
    say(str(job))
    short = "".join(c if c.isalnum() else "-" for c in job.arm.split("(")[0].strip().lower())
    options = DistilOptions(short, frames_in(job.folder), num_threads=job.threads)
    spec = recipe.spec(job.arm, job.seed, job.fold)
    report = distil(
        _targets(job), str(job.out), spec, options, on_progress=told if job.threads is None else None
    )
    return _Made(report.url, report.about["train_seconds"], report.about["parameters"])


def _targets(job: _Job) -> list[str]:
    taught = targets_in(job.folder, job.fold)
    settings = job.recipe.arms.get(job.arm, {})
    if (further := settings.get("further")) is not None:
        pattern = further.format(fold=job.fold)
        other = the_only(job.folder, pattern)
        if other is None:
            raise SettingsError(f"{job.folder} has no {pattern}")
        return [taught, str(other)]
    if (source := settings.get("own")) is not None:
        if job.own is None:
            raise SettingsError(f"there is no student {source!r}")
        return [own_words(job.own, taught, frames_in(job.folder), job.out / "own")]
    return [taught]


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
