"""Nested probes: what a clip's target hangs on, and that it comes as a target store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.distill_arms.probe import Span, held_out_logits, nested_logits, write_targets
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
    free, held = (Span(x_NF, y_N, 3).fit(penalty) for penalty in (1e-3, 1.0))
    assert float(free.weight.norm()) > 3 * float(held.weight.norm())
    assert (np.asarray(x_NF @ free.weight.numpy().T + free.bias.numpy()).argmax(1) == y_N).mean() > 0.9


def test_no_target_hangs_on_labels_of_its_group_or_of_the_outer_fold(clips: tuple[np.ndarray, ...]) -> None:
    x_NF, y_N, group_N = clips
    outer_N = folds(group_N, FOLDS)

    def logits(labels_N: np.ndarray) -> dict[int, np.ndarray]:
        return nested_logits(x_NF, labels_N, group_N, outer_N, 3)

    before = logits(y_N)
    assert sorted(before) == list(range(FOLDS))
    assert all((before_NK.argmax(1) == y_N).mean() > 0.8 for before_NK in before.values())
    other = logits(np.where(outer_N == 1, (y_N + 1) % 3, y_N))
    np.testing.assert_array_equal(
        before[1], other[1]
    )  # no clip's target knows the labels students are judged by
    assert not np.array_equal(before[2], other[2])
    for group in (0, 7, 19):
        mine = group_N == group
        changed = logits(np.where(mine, (y_N + 1) % 3, y_N))
        for fold in range(FOLDS):
            np.testing.assert_array_equal(before[fold][mine], changed[fold][mine])


def test_a_teacher_that_is_tested_elsewhere_saw_nothing_of_it(clips: tuple[np.ndarray, ...]) -> None:
    x_NF, y_N, group_N = clips
    test_N = group_N >= 12
    before_NK = held_out_logits(x_NF, y_N, group_N, test_N, 4, 3)
    assert (before_NK.argmax(1) == y_N).mean() > 0.8
    changed_NK = held_out_logits(x_NF, np.where(test_N, (y_N + 1) % 3, y_N), group_N, test_N, 4, 3)
    np.testing.assert_array_equal(before_NK, changed_NK)
    mine = group_N == 3
    changed_NK = held_out_logits(x_NF, np.where(mine, (y_N + 1) % 3, y_N), group_N, test_N, 4, 3)
    np.testing.assert_array_equal(before_NK[mine], changed_NK[mine])
    assert not np.array_equal(before_NK[test_N], changed_NK[test_N])


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
