"""The motion archive: a folder of real encoded videos with a manifest, rendered from a seed.

It is synthetic: moving shapes over textures, made so that a class is a motion and one frame does not tell it.
It exists so that everything here can be tried, tested and measured without anybody's films; figures from it
say how the machinery behaves, and nothing about accuracy on real footage.

    manifest.csv     uri (relative to the manifest), label, split, group; written last
    archive.json     what the archive was asked to be; another request for the same folder is refused
    videos/000/…     a thousand files a folder, under names that say nothing

Plans do not depend on how many videos are asked for: a longer archive of the same seed begins with the
shorter one, so a finished archive can be made longer. A file that bears its final name is whole and is kept.
One writer at a time.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from pipeline.demo.encode import available_families, encode
from pipeline.demo.motion import CLASSES
from pipeline.demo.plan import Family, VideoPlan, plan_video
from schemas.errors import SettingsError

DEMO_SEED = 7
"""Seed of the demo's archive."""

TEACHER_SEED = 1_000_003
"""Seed of the archive that the shipped teacher was trained, chosen and measured on. Seeds name scenes, so an
archive of any other seed shares no scene, no object and no file with it; measure nothing else on this one."""

DEMO_LENGTHS = (1.1, 2.4)
"""Short videos are commoner than long ones."""

DEMO_SPLITS = (("train", 4), ("calibration", 3), ("test", 3))
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What an archive is.

    ``min_seconds`` to ``max_seconds`` bound the lengths, which are drawn between them from a beta distribution of the
    parameters ``length_shape``; ``videos_per_group`` videos share a scene.
    ``splits`` are names and shares: of each ``sum(shares)`` groups, so many go to each split.

    Raises
    ------
    SettingsError
        If a value is out of range.
    """

    seed: int = DEMO_SEED
    min_seconds: float = 2.0
    max_seconds: float = 12.0
    length_shape: tuple[float, float] = DEMO_LENGTHS
    videos_per_group: int = 3
    splits: tuple[tuple[str, int], ...] = DEMO_SPLITS

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingsError(f"the seed must be 0 or more, got {self.seed}")
        if not 1.5 <= self.min_seconds <= self.max_seconds <= 60.0:
            raise SettingsError(
                "lengths must satisfy 1.5 <= min_seconds <= max_seconds <= 60, "
                f"got {self.min_seconds} and {self.max_seconds}"
            )
        if min(self.length_shape) <= 0:
            raise SettingsError(f"the shape of the lengths must be above 0, got {self.length_shape}")
        if self.videos_per_group < 1:
            raise SettingsError(f"a group needs at least 1 video, got {self.videos_per_group}")
        if not self.splits or any(share < 1 for _, share in self.splits):
            raise SettingsError(f"every split needs a share of at least 1, got {self.splits}")


def plan_archive(settings: ArchiveSettings) -> Iterator[VideoPlan]:
    """Plans of an endless archive; take as many as wanted.

    Within a split every class comes once in each run of ``len(CLASSES)`` videos, so their counts never differ
    by more than one. Labels, splits and encodings are drawn from separate streams of random numbers.
    """
    families = available_families()
    cycle = [name for name, share in settings.splits for _ in range(share)]
    split_rng = np.random.default_rng([settings.seed, 11])
    label_rngs = {
        name: np.random.default_rng([settings.seed, 12, i]) for i, (name, _) in enumerate(settings.splits)
    }
    waiting: dict[str, list[str]] = {name: [] for name in label_rngs}
    order: list[str] = []
    index = group = 0
    while True:
        if not order:
            order = [cycle[i] for i in split_rng.permutation(len(cycle))]
        split = order.pop(0)
        for _ in range(settings.videos_per_group):
            if not waiting[split]:
                waiting[split] = [CLASSES[i] for i in label_rngs[split].permutation(len(CLASSES))]
            yield plan_video(
                settings.seed,
                index,
                label=waiting[split].pop(),
                split=split,
                group_index=group,
                seconds=(settings.min_seconds, settings.max_seconds),
                length_shape=settings.length_shape,
                families=families,
            )
            index += 1
        group += 1


def render_archive(
    folder: str | Path,
    num_videos: int = 60,
    settings: ArchiveSettings | None = None,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render the first ``num_videos`` videos of an archive into ``folder``; returns the manifest's path.

    Run again to continue after an interruption, or with a larger number for a longer archive; finished files
    are kept. With ``workers`` above 1 the videos are spread over that many processes, which start afresh
    ("spawn"), so a script that calls this needs the usual ``if __name__ == "__main__"``. ``on_progress`` is told how
    many files there are, and how many there will be.

    Raises
    ------
    SettingsError
        If ``folder`` holds an archive of other settings or of other encoders, or a number is out of range.
    """
    settings = settings or ArchiveSettings()
    if num_videos < 1 or workers < 1:
        raise SettingsError(f"num_videos and workers must be at least 1, got {num_videos} and {workers}")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    _claim(root, settings, available_families())
    plans = list(islice(plan_archive(settings), num_videos))
    missing = [plan for plan in plans if not video_path(root, plan).exists()]
    for parent in {video_path(root, plan).parent for plan in missing}:
        parent.mkdir(parents=True, exist_ok=True)
    there = len(plans) - len(missing)
    for done, _ in enumerate(_render_files(root, missing, workers), there + 1):
        if on_progress is not None:
            on_progress(done, len(plans))
    return _write_manifest(root, plans)


def video_path(root: Path, plan: VideoPlan) -> Path:
    """Where the file of ``plan`` lies."""
    return root / "videos" / f"{plan.index // 1000:03d}" / plan.name


def _render_files(root: Path, plans: list[VideoPlan], workers: int) -> Iterator[None]:
    if workers == 1 or len(plans) < 2:
        for plan in plans:
            _render_file(root, plan)
            yield
        return
    with processes(min(workers, len(plans))) as pool:
        yield from pool.map(_render_file, repeat(root), plans)


def processes(number: int) -> ProcessPoolExecutor:
    """A pool whose processes end when this one does, however it ends."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(number, mp_context=context, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="locum-end-with-parent", daemon=True).start()


def _render_file(root: Path, plan: VideoPlan) -> None:
    path = video_path(root, plan)
    partial = path.with_name(path.name + ".part")
    encode(plan, partial)
    os.replace(partial, path)


def _claim(root: Path, settings: ArchiveSettings, families: tuple[Family, ...]) -> None:
    """Write ``archive.json``, or check that the one which is there says the same."""
    wanted = {
        "format": _FORMAT,
        "synthetic": True,
        "classes": list(CLASSES),
        "families": [family.name for family in families],
        "seed": settings.seed,
        "min_seconds": settings.min_seconds,
        "max_seconds": settings.max_seconds,
        "length_shape": list(settings.length_shape),
        "videos_per_group": settings.videos_per_group,
        "splits": [list(split) for split in settings.splits],
    }
    path = root / "archive.json"
    if not path.exists():
        _write(path, json.dumps(wanted, indent=1) + "\n")
        return
    found = {"length_shape": list(DEMO_LENGTHS), **json.loads(path.read_text())}  # older ones do not say
    if found != wanted:
        keys = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        detail = "; ".join(f"{k}: {found.get(k)} there, {wanted.get(k)} asked for" for k in keys)
        raise SettingsError(f"{root} holds another archive ({detail}): name another folder")


def _write_manifest(root: Path, plans: list[VideoPlan]) -> Path:
    path = root / "manifest.csv"
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["uri", "label", "split", "group"])
        for plan in plans:
            uri = video_path(root, plan).relative_to(root).as_posix()
            rows.writerow([uri, plan.label, plan.split, plan.group])
    os.replace(partial, path)
    return path


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    os.replace(partial, path)
