"""What cannot be distilled is refused before any long work, and who learns from what is kept apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.distill import distil
from jobs.frames import keep_frames
from jobs.teach import TeachOptions, teach
from pipeline.distill.snapshot import take_snapshot
from pipeline.store.data_files import data_name, encode_shard
from pipeline.store.shard_store import ShardStore
from schemas.errors import ManifestError, ModelError, SettingsError, SpecMismatchError, StoreError
from schemas.model import ModelRef
from tests.jobs.distilling import (
    CLASSES,
    KEEP,
    OPTIONS,
    TRAIN,
    frames_in,
    make,
    make_manifest,
    make_manifest_in,
    targets_in,
)
from tests.tiny import FACTORY, make_video, tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_students")]


def test_without_frames_it_says_what_to_run(tmp_path: Path) -> None:
    manifest = make_manifest_in(tmp_path)
    report = teach(
        str(manifest), str(tmp_path / "out"), tiny_spec(), TeachOptions(batch_size=4, num_threads=1)
    )
    with pytest.raises(SettingsError, match="run `locum frames"):
        distil([report.store.url], str(tmp_path / "s"), TRAIN, OPTIONS)


def test_two_frame_stores_are_not_guessed_between(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh()
    other = keep_frames(targets, keep=KEEP.model_copy(update={"quality": 50}))
    with pytest.raises(SettingsError, match="name one with --frames"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    named = distil([targets], str(tmp_path / "s"), TRAIN, replace(OPTIONS, frames=other.store.url))
    assert named.about["frames"]["url"] == other.store.url


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    make_manifest_in(tmp_path, label="swim")
    targets = make(tmp_path)
    with pytest.raises(ManifestError, match=r"'swim' of .*v\d\d.mp4.*--label-map"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    mapped = TRAIN.model_copy(update={"label_map": {"swim": "jump"}})
    report = distil([targets], str(tmp_path / "s"), mapped, OPTIONS)
    assert report.about["evaluation"]["test"]["labelled_clips"] > 0
    with pytest.raises(SettingsError, match="'fly', which is no class"):
        distil(
            [targets], str(tmp_path / "s"), TRAIN.model_copy(update={"label_map": {"swim": "fly"}}), OPTIONS
        )


def test_labels_of_one_class_alone_teach_nothing(tmp_path: Path) -> None:
    make_manifest_in(tmp_path, label="walk")
    targets = make(tmp_path)
    with pytest.raises(SettingsError, match="only some of 'walk'"):
        distil([targets], str(tmp_path / "s"), TRAIN.model_copy(update={"label_weight": 1.0}), OPTIONS)


def test_a_teacher_of_one_class_teaches_nothing(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh(teacher=ModelRef(factory=FACTORY, kwargs={"num_classes": 1}))
    with pytest.raises(SettingsError, match="has 1 class"):
        distil([targets], str(tmp_path / "s"), TRAIN.model_copy(update={"classes": ()}), OPTIONS)


def test_an_empty_store_is_said(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh()
    for path in (Path(targets) / "data").iterdir():
        path.unlink()
    with pytest.raises(SettingsError, match="is empty"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)


def test_where_all_is_quarantined_nothing_can_be_learnt(tmp_path: Path) -> None:
    make_manifest_in(tmp_path)
    for path in (tmp_path / "archive" / "videos").iterdir():
        path.write_bytes(b"nothing")
    targets = make(tmp_path)
    with pytest.raises(SettingsError, match="no clip has both frames and targets"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)


def test_a_logit_that_is_not_finite_is_named(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = ShardStore.open(fresh())
    key = sorted(targets.committed())[0]
    table, footer, _ = targets.read_data(key)
    logits = np.stack(table["logits"].to_numpy()).astype(np.float16)
    logits[0, 2] = np.nan
    at = table.schema.get_field_index("logits")
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), type=table.schema.field(at).type)
    broken = table.set_column(at, table.schema.field(at), column)
    targets.files.put_over(data_name(key), encode_shard(broken, footer))
    with pytest.raises(StoreError, match=r"logits of the clip at .* s of .*\.mp4 are not finite"):
        distil([targets.url], str(tmp_path / "s"), TRAIN, OPTIONS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"student_kwargs": {"in_channels": 1}}, "does not take"),
        ({"student_kwargs": {"num_classes": 7}}, "7 classes, the targets have 5"),
        ({"student": "pipeline.models.small3d:nothing"}, "nothing"),
        ({"student": FACTORY, "student_kwargs": {"num_frames": 9}}, "does not take"),
        ({"student": "large"}, "'large' has no form"),
    ],
)
def test_a_student_that_does_not_fit_is_found_before_any_work(
    shared_stores: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises((ModelError, SettingsError), match=says):
        distil([targets_in(shared_stores)], str(tmp_path), TRAIN.model_copy(update=change), OPTIONS)
    assert not list(tmp_path.iterdir())


def test_nothing_is_calibrated_on_what_the_teacher_learnt_from(shared_stores: Path, tmp_path: Path) -> None:
    told = TRAIN.model_copy(update={"teacher_trained_on": ("calibration",)})
    with pytest.raises(SettingsError, match="the teacher's own training videos"):
        distil([targets_in(shared_stores)], str(tmp_path), told, OPTIONS)


def test_a_teacher_that_says_what_it_learnt_from_is_believed(
    fresh: Callable[..., str], tmp_path: Path
) -> None:
    targets = fresh(teacher=ModelRef(factory=FACTORY, trained_on=("calibration",)))
    with pytest.raises(SettingsError, match="the teacher's own training videos"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)


def test_teachers_whose_classes_stand_in_another_order_are_refused_whatever_they_are_called(
    fresh: Callable[..., str], tmp_path: Path
) -> None:
    first = fresh(teacher=ModelRef(factory=FACTORY, classes=CLASSES))
    second = teach(
        str(tmp_path / "archive" / "m.csv"),
        str(tmp_path / "out"),
        tiny_spec(teacher=ModelRef(factory=FACTORY, classes=CLASSES[::-1])),
        TeachOptions(name="other", batch_size=4, shard_clips=12, num_threads=1),
    ).store.url
    for classes in ((), CLASSES):
        with pytest.raises(SettingsError, match="in another order"):
            told = TRAIN.model_copy(update={"classes": classes})
            distil([first, second], str(tmp_path / "s"), told, OPTIONS)


def test_what_the_teacher_learnt_from_may_be_said_later(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh()
    report = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    assert fresh(teacher=ModelRef(factory=FACTORY, trained_on=("calibration",))) == targets
    assert fresh() == targets  # who says nothing takes nothing back
    with pytest.raises(SettingsError, match="the teacher's own training videos"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    assert fresh(teacher=ModelRef(factory=FACTORY, trained_on=("test",))) == targets
    told = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    assert told.url != report.url
    known = pq.read_table(Path(told.url) / "predictions" / "test.parquet")["known_to_teacher"]
    assert known.to_pylist() == [True] * len(known)
    assert "teacher_accuracy" not in told.about["evaluation"]["test"]["metrics"]
    assert "teacher_accuracy" in report.about["evaluation"]["test"]["metrics"]
    assert fresh(teacher=ModelRef(factory=FACTORY, classes=CLASSES)) == targets
    with pytest.raises(SpecMismatchError, match="calls the teacher's classes walk, run"):
        fresh(teacher=ModelRef(factory=FACTORY, classes=CLASSES[::-1]))


def test_clips_without_a_split_are_train_for_the_teacher_too(
    fresh: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    make_manifest(tmp_path / "archive", splits=("", "", "test"))
    targets = fresh(teacher=ModelRef(factory=FACTORY, trained_on=("train",)))
    with pytest.raises(SettingsError, match="the teacher's own training videos"):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)


@pytest.mark.parametrize(
    ("mirror", "says"),
    [({"walk": "fly"}, "'fly', which is no class"), ({"walk": "run", "run": "sit"}, "not back")],
)
def test_a_mirror_that_is_none_is_refused(
    shared_stores: Path, tmp_path: Path, mirror: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        distil(
            [targets_in(shared_stores)], str(tmp_path), TRAIN.model_copy(update={"mirror": mirror}), OPTIONS
        )


def test_segments_of_a_film_stay_together(tmp_path: Path) -> None:
    """Without a group, neighbouring seconds of one film must not come on both sides of a carved split."""
    folder = tmp_path / "archive"
    folder.mkdir()
    lines = ["uri,label,start,end"]
    for i in range(8):
        make_video(folder / f"v{i}.mp4", 100 * i, 100)
        lines += [f"v{i}.mp4,{CLASSES[i % 3]},{s},{s + 1}" for s in range(4)]
    (folder / "m.csv").write_text("\n".join(lines))
    targets = make(tmp_path)
    snapshot = take_snapshot(
        tmp_path / "snap", ShardStore.open(frames_in(tmp_path)), [ShardStore.open(targets)], classes=CLASSES
    )
    assert len(np.unique(snapshot.rows_R["group"])) == 8 and len(np.unique(snapshot.rows_R["video"])) == 32


def test_overlapping_clips_are_shown_one_a_stretch_or_refused(
    fresh: Callable[..., str], tmp_path: Path
) -> None:
    out, one = str(tmp_path / "s"), TRAIN.model_copy(update={"overlapping": "one", "shift": False})
    with pytest.raises(SettingsError, match="do not overlap"):
        distil([fresh()], out, one, OPTIONS)
    clip = tiny_spec().clip.model_copy(update={"stride_seconds": 0.125})
    targets = make(tmp_path, clip=clip)
    (frames,) = (f for f in (tmp_path / "out").glob("frames-*") if "0.125" in (f / "spec.json").read_text())
    options = replace(OPTIONS, frames=str(frames))
    with pytest.raises(SettingsError, match="say --overlapping one instead"):
        distil([targets], out, TRAIN, options)
    steps: dict[str, int] = {}
    for how in ("all", "one"):
        spec = one.model_copy(update={"overlapping": how})
        about = distil([targets], out, spec, options, on_progress=lambda p, h=how: steps.update({h: p.steps}))
        assert about.about["clips"]["train"] > 80
    assert steps["all"] > 2 * steps["one"] > 0
