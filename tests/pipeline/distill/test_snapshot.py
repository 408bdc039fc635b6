"""Snapshots: each row has the targets, the label and the split of its own key, whatever the order of the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.distill.snapshot import Snapshot, digest_of, take_snapshot
from pipeline.distill.targets import TargetReader
from pipeline.store.mend import remove
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from pipeline.uncertainty import softmax
from schemas.errors import ManifestError, SettingsError
from tests.pipeline.distill.frame_stores import frame_store
from tests.pipeline.store.stores import CLASSES, amendment, finish, new_store, plan_row, video_id

NAMES = tuple(f"label{k}" for k in range(CLASSES))


@pytest.fixture
def stores(tmp_path: Path) -> tuple[ShardStore, ShardStore]:
    """Targets of 9 videos, and frames of all but the last one, and of one that has no targets."""
    targets = new_store(str(tmp_path), videos=9, shard_clips=7, clips=3)
    finish(targets)
    return targets, frame_store(str(tmp_path), [8, 12, 3, 1, 0, 2, 4, 7, 6], shard_clips=4, clips=3)


def snapshot_of(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> Snapshot:
    targets, frames = stores
    return take_snapshot(tmp_path / "snap", frames, [targets], classes=NAMES)


def test_each_row_has_what_its_key_has(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> None:
    snapshot = snapshot_of(stores, tmp_path)
    truth = {
        (r["video_id"], r["start_us"]): r
        for r in read(stores[0], ["video_id", "start_us", "end_us", "logits", "label", "split"]).to_pylist()
    }
    rows = np.arange(len(snapshot.rows_R))
    ids = snapshot.video_ids(rows)
    found = 0
    for row, name in zip(rows.tolist(), ids, strict=True):
        about = snapshot.rows_R[row]
        expected = truth.get((name, int(about["start_us"])))
        assert snapshot.usable_R[row] == (expected is not None)
        if expected is None:
            assert name == video_id(12) and about["label"] == -1
            continue
        found += 1
        np.testing.assert_array_equal(snapshot.teachers[0].logits_RK[row], expected["logits"])
        assert NAMES[about["label"]] == expected["label"]
        assert snapshot.splits[about["split"]] == expected["split"]
        assert about["end_us"] == expected["end_us"]
    assert found == 8 * 3


def test_blocks_lie_one_after_the_other_and_hold_whole_videos(
    stores: tuple[ShardStore, ShardStore], tmp_path: Path
) -> None:
    snapshot = snapshot_of(stores, tmp_path)
    blocks = snapshot.blocks_B
    assert blocks["first"].tolist() == (np.cumsum(blocks["rows"]) - blocks["rows"]).tolist()
    assert blocks["rows"].sum() == len(snapshot.rows_R)
    videos = [set(snapshot.rows_R["video"][b["first"] : b["first"] + b["rows"]].tolist()) for b in blocks]
    assert sum(map(len, videos)) == len(set().union(*videos))


def test_groups_are_told_apart_and_kept_together(
    stores: tuple[ShardStore, ShardStore], tmp_path: Path
) -> None:
    snapshot = snapshot_of(stores, tmp_path)
    rows = snapshot.rows_R[snapshot.usable_R]
    assert len(np.unique(rows["group"])) == len(np.unique(rows["video"])) == 8


def test_removed_videos_are_left_out(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> None:
    remove(stores[0], [video_id(3)])
    remove(stores[1], [video_id(4)])
    snapshot = snapshot_of(stores, tmp_path)
    usable = np.flatnonzero(snapshot.usable_R)
    assert set(snapshot.video_ids(usable)) == {video_id(n) for n in (8, 1, 0, 2, 7, 6)}


def test_a_label_that_was_mended_is_the_one_that_counts(
    stores: tuple[ShardStore, ShardStore], tmp_path: Path
) -> None:
    stores[0].add_plan(amendment([plan_row(1, 3, label="label0", split="test")]))
    snapshot = snapshot_of(stores, tmp_path)
    rows = [i for i, name in enumerate(snapshot.video_ids(np.arange(27))) if name == video_id(1)]
    assert [NAMES[k] for k in snapshot.rows_R["label"][rows]] == ["label0"] * 3
    assert [snapshot.splits[k] for k in snapshot.rows_R["split"][rows]] == ["test"] * 3


def test_the_digest_is_of_every_file(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> None:
    targets, frames = stores
    before = digest_of(frames, [targets])
    assert digest_of(frames, [targets]) == before == snapshot_of(stores, tmp_path).digest
    remove(targets, [video_id(0)])
    assert digest_of(frames, [targets]) != before


def test_probabilities_are_of_the_temperature(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> None:
    snapshot = snapshot_of(stores, tmp_path)
    rows = np.flatnonzero(snapshot.usable_R)[:5]
    logits = np.asarray(snapshot.teachers[0].logits_RK[rows], np.float32)
    np.testing.assert_allclose(TargetReader(snapshot, 2.0).dense(rows), softmax(logits / 2), atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(TargetReader(snapshot, 1.0, multi_label=True).dense(rows), sigmoid, atol=1e-6)
    assert TargetReader(snapshot).first(rows).tolist() == logits.argmax(axis=1).tolist()


def test_a_label_without_a_class_is_named(stores: tuple[ShardStore, ShardStore], tmp_path: Path) -> None:
    targets, frames = stores
    with pytest.raises(ManifestError, match=r"'label2' of /v/\d+\.mp4 \(classes: label0, label1, other\)"):
        take_snapshot(tmp_path / "snap", frames, [targets], classes=("label0", "label1", "other"))
    assert not (tmp_path / "snap").exists()
    unnamed = take_snapshot(tmp_path / "snap", frames, [targets], use_labels=False)
    assert (unnamed.rows_R["label"] == -1).all()


def test_class_names_must_be_as_many_as_classes(
    stores: tuple[ShardStore, ShardStore], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="2 class names were given, the teacher has 3"):
        take_snapshot(tmp_path / "snap", stores[1], [stores[0]], classes=("a", "b"))
