"""Training on two workers: the same numbers as in one process, as near as batch statistics allow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.distill import DistilOptions, distil
from jobs.distilling.workers import distil_on_workers
from pipeline.distill.loop import TrainProgress
from schemas.cluster import RayOptions
from schemas.errors import SettingsError
from schemas.model import InputSpec
from schemas.student import TrainSpec
from tests.jobs.distilling import CLASSES, make, make_manifest, targets_in, weights
from tests.tiny import FACTORY

SPEC = TrainSpec(
    student=FACTORY,  # without batch norm, whose statistics would be of half a batch
    student_kwargs={"num_frames": 4},
    student_input=InputSpec(),
    epochs=3,
    final_epochs=1,
    batch_size=8,
    classes=CLASSES,
    seed=5,
)
TWO = RayOptions(workers="2")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "archive").mkdir()
    make_manifest(folder / "archive")
    make(folder)
    return folder


@pytest.mark.slow
def test_two_workers_learn_what_one_learns(stores: Path, tmp_path: Path) -> None:
    options = DistilOptions(device="cpu", num_threads=1)
    alone = distil([targets_in(stores)], str(tmp_path / "one"), SPEC, options)
    said: list[TrainProgress] = []
    both = distil_on_workers(
        [targets_in(stores)], str(tmp_path / "two"), SPEC, options, TWO, on_progress=said.append
    )
    assert both.trained_now and said and said[-1].last is not None
    assert both.about["fingerprint"] == alone.about["fingerprint"]
    first, second = weights(alone), weights(both)
    assert first.keys() == second.keys()
    for name in first:
        if name.startswith("trunk."):
            assert (first[name] - second[name]).abs().max() < 1e-4, name
    losses = [[r["train_loss"] for r in report.about["history"]] for report in (alone, both)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_said_by_its_own_name(stores: Path, tmp_path: Path) -> None:
    nobody = SPEC.model_copy(update={"split_map": {"train": "test"}})
    with pytest.raises(SettingsError, match="no usable clip is in a split"):
        distil_on_workers([targets_in(stores)], str(tmp_path), nobody, DistilOptions(device="cpu"), TWO)


def test_what_does_not_fit_is_said_before_ray_is_started(stores: Path, tmp_path: Path) -> None:
    odd = SPEC.model_copy(update={"batch_size": 9})
    with pytest.raises(SettingsError, match="9 clips cannot be shared evenly by 2"):
        distil_on_workers([targets_in(stores)], str(tmp_path), odd, DistilOptions(device="cpu"), TWO)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
