"""Nested probes: what a clip's target hangs on, and that it comes as a target store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.distill_arms.probe import fit_probe, nested_logits, write_targets
from jobs.teach import TeachOptions, teach
from pipeline.draws import folds
from pipeline.models.resolve import resolve_targets
from pipeline.store.read import read
from pipeline.store.verify import verify
from tests.tiny import make_archive, tiny_spec

FOLDS = 5


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups of 60 clips in 20 groups: two of the features tell the class."""
    rng = np.random.default_rng(3)
    y_N = rng.integers(0, 3, 60)
    x_NF = rng.normal(size=(60, 6))
    x_NF[:, 0] += 3 * (y_N == 1)
    x_NF[:, 1] += 3 * (y_N == 2)
    return x_NF, y_N, np.repeat(np.arange(20, dtype=np.uint64), 3)


def test_a_probe_learns_and_a_penalty_holds_it_back(clips: tuple[np.ndarray, ...]) -> None:
    x_NF, y_N, _ = clips
    free, held = (fit_probe(x_NF, y_N, 3, penalty) for penalty in (1e-3, 1.0))
    assert float(free.weight.norm()) > 3 * float(held.weight.norm())
    assert (np.asarray(x_NF @ free.weight.numpy().T + free.bias.numpy()).argmax(1) == y_N).mean() > 0.9


def test_no_target_hangs_on_labels_of_its_group_or_of_the_outer_fold(clips: tuple[np.ndarray, ...]) -> None:
    x_NF, y_N, group_N = clips
    before_NK = nested_logits(x_NF, y_N, group_N, 1, FOLDS, 3)
    assert (before_NK.argmax(1) == y_N).mean() > 0.8
    of_outer = folds(group_N, FOLDS) == 1
    other_NK = nested_logits(x_NF, np.where(of_outer, (y_N + 1) % 3, y_N), group_N, 1, FOLDS, 3)
    np.testing.assert_array_equal(
        before_NK, other_NK
    )  # no clip's target knows the labels students are judged by
    for group in (0, 7, 19):
        mine = group_N == group
        changed_NK = nested_logits(x_NF, np.where(mine, (y_N + 1) % 3, y_N), group_N, 1, FOLDS, 3)
        np.testing.assert_array_equal(before_NK[mine], changed_NK[mine])


def test_given_logits_become_a_store(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    features = teach(str(archive), str(tmp_path / "a"), tiny_spec(), TeachOptions(batch_size=4)).store
    rows = read(features, ["video_id", "start_us", "logits"])
    keys = list(zip(rows["video_id"].to_pylist(), rows["start_us"].to_pylist(), strict=True))
    logits = {key: np.array([i, -i, 0.5]) for i, key in enumerate(keys)}
    resolved = resolve_targets(tiny_spec())
    teacher = resolved.teacher.model_copy(update={"num_classes": 3, "classes": ("a", "b", "c")})
    store = write_targets(
        features, str(tmp_path / "b"), resolved.model_copy(update={"teacher": teacher}), logits
    )
    assert verify(store).clean and not store.pending()
    found = read(store, ["video_id", "start_us", "logits"]).to_pylist()
    assert len(found) == len(keys)
    for row in found:
        np.testing.assert_allclose(row["logits"], logits[row["video_id"], row["start_us"]])
