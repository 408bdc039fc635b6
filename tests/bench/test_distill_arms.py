"""What arms of a comparison are judged by, and that loaders which decode video show what the cache shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.distill_arms.compare import against_online, held, paired
from bench.distill_arms.elsewhere import said_elsewhere
from bench.distill_arms.online import OnlineLoader, VideoLoader
from jobs.distill import distil
from jobs.frames import keep_frames
from jobs.teach import TeachOptions, teach
from pipeline.distill.loader import Augmentation, Batch, Loader
from pipeline.distill.snapshot import take_snapshot
from pipeline.distill.targets import TargetReader
from pipeline.models.teacher import Teacher
from pipeline.store.shard_store import ShardStore
from schemas.frames import KeepSpec
from schemas.targets import TargetSpec
from tests.jobs.distilling import CLASSES, OPTIONS, TRAIN, frames_in, make
from tests.tiny import make_archive, tiny_spec


@pytest.fixture(scope="module")
def loaders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loader]:
    """Of the same targets: from the cache, from video, and with the teacher in the loop."""
    folder = tmp_path_factory.mktemp("arms")
    options = TeachOptions(batch_size=4, num_threads=1)
    report = teach(str(make_archive(folder)), str(folder / "out"), tiny_spec(), options)
    frames = ShardStore.open(
        keep_frames(report.store.url, keep=KeepSpec(num_frames=4, width=32, height=24)).store.url
    )
    reader = TargetReader(take_snapshot(folder / "snapshot", frames, [report.store], use_labels=False))
    teacher = Teacher(TargetSpec(**report.store.document.spec), batch_size=4)
    return {
        "cache": Loader(reader, frames),
        "video": VideoLoader(reader, frames, report.store),
        "online": OnlineLoader(reader, frames, report.store, teacher),
    }


def batches(loader: Loader, shift: bool) -> list[Batch]:
    every = loader._snapshot.usable_R
    return list(loader.epoch(every, seed=1, epoch=0, batch_size=4, augment=Augmentation(shift)))


def distance(first: Batch, second: Batch) -> float:
    """Of the frames, in levels of 255, at the worst clip."""
    gap = np.abs(first.frames_NTHWC.astype(float) - second.frames_NTHWC)
    return float(gap.mean(axis=(1, 2, 3, 4)).max())


@pytest.mark.parametrize("shift", [False, True])
def test_decoded_windows_are_those_of_the_cache(loaders: dict[str, Loader], shift: bool) -> None:
    cached, decoded = (batches(loaders[name], shift) for name in ("cache", "video"))
    assert len(cached) == len(decoded) > 3
    for a, b in zip(cached, decoded, strict=True):
        assert distance(a, b) < 3  # JPEG
        np.testing.assert_array_equal(a.probs_NK, b.probs_NK)
    moved = batches(loaders["cache"], not shift)
    assert max(distance(a, b) for a, b in zip(cached, moved, strict=True)) > 6  # a shift would be seen


def test_the_teacher_in_the_loop_says_what_the_cache_says_of_whole_clips(loaders: dict[str, Loader]) -> None:
    for a, b in zip(batches(loaders["cache"], False), batches(loaders["online"], False), strict=True):
        np.testing.assert_allclose(a.probs_NK, b.probs_NK, atol=2e-3)  # the cache holds float16
        assert distance(a, b) == 0  # both see the same JPEGs


def test_the_teacher_in_the_loop_sees_the_shifted_window(loaders: dict[str, Loader]) -> None:
    whole, moved = (batches(loaders["online"], shift) for shift in (False, True))
    gaps = [np.abs(a.probs_NK - b.probs_NK).max() for a, b in zip(whole, moved, strict=True)]
    assert max(gaps) > 0.01


def predictions(folder: Path, right: list[bool], head: list[float]) -> list[str]:
    """One student's words on two clips each of four videos, of two classes; all labels are 0, and the teacher is right
    of the first half."""
    n = len(right)
    logits = [[2.0, 0.0] if r else [0.0, 2.0] for r in right]
    table = pa.table(
        {
            "video_id": [f"v{i // 2}" for i in range(n)],
            "start_us": list(range(n)),
            "label": [0] * n,
            "group": pa.array([i // 2 for i in range(n)], pa.uint64()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(logits)), 2),
            "kl": [0.5] * n,
            "student_right": head,
            "teacher_right": head,
            "teacher_top1": [0] * (n // 2) + [1] * (n - n // 2),
        }
    )
    (folder / "predictions").mkdir(parents=True)
    pq.write_table(table, folder / "predictions" / "test.parquet")
    return [str(folder)]


def test_arms_are_compared_by_clip_and_video_over_seeds(tmp_path: Path) -> None:
    flat = [0.5] * 8
    good = [True] * 8
    half = [True, True, False, False, True, True, False, False]
    first = held([predictions(tmp_path / "a1", good, flat), predictions(tmp_path / "a2", half, flat)])
    second = held([predictions(tmp_path / "b1", half, flat), predictions(tmp_path / "b2", half, flat)])
    assert first.right_SN.mean(axis=1).tolist() == [1.0, 0.5]
    assert first.video_right_SV.mean(axis=1).tolist() == [1.0, 0.5]
    _, clips, videos = paired("a against b", first, second)
    for line in (clips, videos):
        difference = float(line.split("difference")[1].split("[")[0])
        low, high = (float(v) for v in line.split("[")[1].split("]")[0].split(","))
        assert difference == 0.25
        assert 0 <= low < difference < high <= 0.5  # groups are drawn, and half of them do not differ


def test_an_arm_that_saw_no_labels_is_judged_by_those_of_another(tmp_path: Path) -> None:
    half = [True, True, False, False, True, True, False, False]
    with_labels = predictions(tmp_path / "with", [True] * 8, [0.5] * 8)
    without = predictions(tmp_path / "without", half, [0.5] * 8)
    path = Path(without[0]) / "predictions" / "test.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("label")
    pq.write_table(table.set_column(at, "label", pa.nulls(8, pa.int64())), path)
    assert held([without], like=[with_labels]).right_SN.mean() == 0.5
    fewer = predictions(tmp_path / "fewer", [True] * 6, [0.5] * 6)
    with pytest.raises(ValueError, match="same clips"):
        held([without], like=[fewer])


def test_arms_on_different_clips_are_refused(tmp_path: Path) -> None:
    one = predictions(tmp_path / "one", [True] * 8, [0.5] * 8)
    other = predictions(tmp_path / "other", [True] * 6, [0.5] * 6)
    with pytest.raises(ValueError, match="same clips"):
        held([one, other])


def test_a_clip_judged_twice_and_arms_on_other_clips_are_refused(tmp_path: Path) -> None:
    one = predictions(tmp_path / "one", [True] * 8, [0.5] * 8)
    fewer = predictions(tmp_path / "fewer", [True] * 6, [0.5] * 6)
    with pytest.raises(ValueError, match="judged twice"):
        held([one + one])
    with pytest.raises(ValueError, match="the arms did not judge the same clips"):
        paired("a against b", held([one]), held([fewer]))


def test_against_online_it_is_a_ratio_of_means_and_a_difference_where_there_are_labels() -> None:
    kl_N, right_N = np.array([0.2, 0.4, 0.6, 0.8]), np.array([1.0, 0.0, np.nan, 1.0])
    group_N = np.arange(4, dtype=np.uint64)
    ratio, difference = against_online(kl_N, 2 * kl_N, right_N, np.array([0.0, 0.0, np.nan, 1.0]), group_N)
    assert ratio.split()[2:] == ["0.5000", "[0.5000,", "0.5000]"]
    assert difference.split()[3] == "0.3333"


def test_a_student_says_elsewhere_what_it_says_at_home(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    targets, frames = ShardStore.open(make(tmp_path)), ShardStore.open(frames_in(tmp_path))
    report = distil([targets.url], str(tmp_path / "out"), TRAIN, OPTIONS)
    snapshot = take_snapshot(tmp_path / "snapshot", frames, [targets], classes=CLASSES)
    place = said_elsewhere(Path(report.url), snapshot, frames, tmp_path / "judged")
    every = pq.read_table(place / "predictions" / "test.parquet")
    home = pq.read_table(Path(report.url) / "predictions" / "test.parquet")
    keys = ["video_id", "start_us"]
    both = home.select([*keys, "student_right"]).join(
        every.select([*keys, "student_right"]), keys, right_suffix=" there"
    )
    assert every.num_rows == int(snapshot.usable_R.sum()) > both.num_rows == home.num_rows > 0
    assert both["student_right"].to_numpy() == pytest.approx(both["student_right there"].to_numpy(), abs=1e-4)
    (path,) = place.rglob("*.parquet")
    before = path.stat().st_mtime_ns
    assert said_elsewhere(Path(report.url), snapshot, frames, tmp_path / "judged") == place
    assert path.stat().st_mtime_ns == before
    other = take_snapshot(tmp_path / "other", frames, [targets], classes=CLASSES[::-1])
    with pytest.raises(ValueError, match="knows other classes"):
        said_elsewhere(Path(report.url), other, frames, tmp_path / "judged")
