"""Distilling on small real files: what is learnt, that it repeats and resumes, what is refused before long work."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from jobs.cli import run as locum
from jobs.distill import DistilOptions, DistilReport, distil
from jobs.frames import keep_frames
from jobs.prune import prune
from jobs.teach import TeachOptions, teach
from pipeline.distill.loop import TrainProgress
from pipeline.distill.snapshot import take_snapshot
from pipeline.models import small3d
from pipeline.store.data_files import data_name, encode_shard
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.errors import ManifestError, ModelError, SettingsError, SpecMismatchError, StoreError
from schemas.frames import KeepSpec
from schemas.model import ModelRef
from schemas.student import TrainSpec
from schemas.targets import LogitsSpec
from tests.tiny import FACTORY, make_video, tiny_spec

SPLITS = ("train", "train", "train", "val", "calibration", "test")
CLASSES = ("walk", "run", "sit", "jump", "lie")
TRAIN = TrainSpec(
    student="tiny",
    student_kwargs={"width": 4},
    epochs=3,
    final_epochs=1,
    batch_size=8,
    classes=CLASSES,
    label_weight=0.2,
    seed=5,
)
OPTIONS = DistilOptions(device="cpu", num_threads=1)
KEEP = KeepSpec(num_frames=4, width=24, height=16)


def make_manifest(
    folder: Path, splits: tuple[str, ...] = SPLITS, num_videos: int = 18, label: str = ""
) -> Path:
    path = folder / "m.csv"
    with path.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["uri", "label", "split", "group"])
        for i in range(num_videos):
            name = f"videos/v{i:02d}.mp4"
            if not (folder / name).exists():
                make_video(folder / name, 100 * i, 40 + 10 * (i % 3))
            rows.writerow([name, label or CLASSES[i % 3], splits[i % len(splits)], f"g{i}"])
    return path


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere, and exports by the tests with that in their name; here both only take time."""
    monkeypatch.setattr("pipeline.distill.evaluate.NUM_DRAWS", 20)
    if "export" not in request.node.name:
        monkeypatch.setattr("jobs.distill.export_student", _no_export)


def _no_export(student: object, shape_THW: object, path: Path) -> float:
    path.write_bytes(b"")
    return 0.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target store and a frame store beside each other; the folder that holds them. Not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "archive").mkdir()
    make(folder)
    return folder


def make(folder: Path, **changes: object) -> str:
    """Teach and keep frames of the archive in ``folder``; the target store."""
    if not (folder / "archive" / "m.csv").exists():
        make_manifest(folder / "archive")
    options = TeachOptions(batch_size=4, shard_clips=12, num_threads=1)
    report = teach(str(folder / "archive" / "m.csv"), str(folder / "out"), tiny_spec(**changes), options)
    keep_frames(report.store.url, keep=KEEP)
    return report.store.url


def targets_in(folder: Path) -> str:
    (found,) = (folder / "out").glob("targets-*")
    return str(found)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., str]:
    """Makes stores of a test's own."""

    def build(**changes: object) -> str:
        (tmp_path / "archive").mkdir(exist_ok=True)
        return make(tmp_path, **changes)

    return build


def weights(report: DistilReport) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(str(Path(report.url) / "student.safetensors"))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_student_comes_with_all_that_is_to_be_known_of_it(shared: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared)], str(tmp_path), TRAIN, OPTIONS)
    about = json.loads((Path(report.url) / "student.json").read_text())
    assert about == report.about and report.trained_now
    assert about["clips"]["train"] > about["clips"]["test"] > 0
    assert [r["epoch"] for r in about["history"]] == [0, 1, 2, 3]
    assert about["history"][2]["train_loss"] < about["history"][0]["train_loss"]
    assert set(about["evaluation"]) == {"val", "calibration", "test"}
    test = about["evaluation"]["test"]["metrics"]
    for name in (
        "accuracy",
        "agreement",
        "nll",
        "brier",
        "ece",
        "kl",
        "student_right_auroc_gain",
        "student_right_aurc",
    ):
        assert name in test
    for split, clips in about["clips"].items():
        if split != "train":
            table = pq.read_table(Path(report.url) / "predictions" / f"{split}.parquet")
            assert table.num_rows == clips
    assert not (Path(report.url) / "work").exists()


def test_predictions_are_of_the_right_clips(shared: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared)], str(tmp_path), TRAIN, OPTIONS)
    said = pq.read_table(Path(report.url) / "predictions" / "test.parquet").to_pylist()
    rows = read(
        ShardStore.open(targets_in(shared)), ["video_id", "start_us", "top1", "label", "split"]
    ).to_pylist()
    by_key = {(r["video_id"], r["start_us"]): r for r in rows}
    assert {(r["video_id"], r["start_us"]) for r in said} == {
        k for k, r in by_key.items() if r["split"] == "test"
    }
    for r in said:
        truth = by_key[r["video_id"], r["start_us"]]
        assert r["teacher_top1"] == truth["top1"] and CLASSES[r["label"]] == truth["label"]


@pytest.mark.filterwarnings("error:No complete tensor")
def test_the_exported_student_runs_with_torch_alone(shared: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared)], str(tmp_path), TRAIN, OPTIONS)
    code = (
        "import sys, torch\n"
        "student = torch.export.load(sys.argv[1]).module()\n"
        "for n in (1, 3, 7):\n"
        "    logits, confidences = student(torch.zeros((n, 4, 16, 24, 3), dtype=torch.uint8))\n"
        "    assert logits.shape == (n, 5) and confidences.shape == (n, 2)\n"
        "    assert 0 <= confidences.min() and confidences.max() <= 1\n"
        "assert not any(m.split('.')[0] in ('pipeline', 'schemas', 'jobs') for m in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(Path(report.url) / "student.pt2")],
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert report.about["exported_max_difference"] < 1e-4


def test_running_again_returns_what_is_there(shared: Path, tmp_path: Path) -> None:
    first = distil([targets_in(shared)], str(tmp_path), TRAIN, OPTIONS)
    again = distil([targets_in(shared)], str(tmp_path), TRAIN, OPTIONS)
    assert again.url == first.url and not again.trained_now and again.about == first.about
    other = distil([targets_in(shared)], str(tmp_path), TRAIN.model_copy(update={"seed": 6}), OPTIONS)
    assert other.url != first.url and not same(weights(other), weights(first))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3, 9, 14])
def test_a_run_that_was_stopped_ends_at_the_same_weights(
    shared: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.distill.loop.CHECKPOINT_SECONDS", 0.0)
    whole = distil([targets_in(shared)], str(tmp_path / "whole"), TRAIN, OPTIONS)
    told: list[TrainProgress] = []

    def stop(p: TrainProgress) -> None:
        told.append(p)
        if p.step == step:
            raise Stopped

    with pytest.raises(Stopped):
        distil([targets_in(shared)], str(tmp_path / "cut"), TRAIN, OPTIONS, on_progress=stop)
    again: list[int] = []
    cut = distil(
        [targets_in(shared)],
        str(tmp_path / "cut"),
        TRAIN,
        OPTIONS,
        on_progress=lambda p: again.append(p.step),
    )
    assert told[-1].step == step < told[-1].steps and again[0] == step
    assert same(weights(cut), weights(whole))
    timeless = [[{**r, "seconds": 0} for r in report.about["history"]] for report in (cut, whole)]
    assert timeless[0] == timeless[1]


def test_patience_ends_early_and_the_best_weights_are_kept(shared: Path, tmp_path: Path) -> None:
    spec = TRAIN.model_copy(update={"epochs": 30, "patience": 2, "final_epochs": 0, "learning_rate": 0.3})
    report = distil([targets_in(shared)], str(tmp_path), spec, OPTIONS)
    history = [r["val_loss"] for r in report.about["history"]]
    assert len(history) < 30 and report.about["best_epoch"] == int(np.argmin(history)) == len(history) - 3
    assert report.about["evaluation"]["val"]["metrics"]["kl"]["value"] is not None


def test_top_k_targets_teach_too(fresh: Callable[..., str], tmp_path: Path) -> None:
    report = distil([fresh(logits=LogitsSpec(top_k=2))], str(tmp_path / "s"), TRAIN, OPTIONS)
    history = report.about["history"]
    assert history[2]["train_loss"] < history[0]["train_loss"]
    with pytest.raises(SettingsError, match=r"temperatures \(1, 2, 4\), not at 3"):
        distil(
            [targets_in(tmp_path)],
            str(tmp_path / "s"),
            TRAIN.model_copy(update={"temperature": 3.0}),
            OPTIONS,
        )


def test_two_teachers_teach_their_mean(fresh: Callable[..., str], tmp_path: Path) -> None:
    first = fresh()
    second = fresh(precision="bf16")
    both = distil([first, second], str(tmp_path / "s"), TRAIN, OPTIONS)
    assert len(both.about["targets"]) == 2
    weighted = TRAIN.model_copy(update={"teacher_weights": (1.0, 3.0)})
    assert distil([first, second], str(tmp_path / "s"), weighted, OPTIONS).url != both.url
    with pytest.raises(SettingsError, match="each of 2 teachers"):
        distil(
            [first, second],
            str(tmp_path / "s"),
            TRAIN.model_copy(update={"teacher_weights": (1.0,)}),
            OPTIONS,
        )


def test_a_multi_label_student_learns(shared: Path, tmp_path: Path) -> None:
    spec = TrainSpec(**{**TRAIN.model_dump(), "multi_label": True, "label_weight": 0.0})
    history = distil([targets_in(shared)], str(tmp_path), spec, OPTIONS).about["history"]
    assert history[2]["train_loss"] < history[0]["train_loss"]


def test_without_labels_the_teacher_is_taken_at_its_word(shared: Path, tmp_path: Path) -> None:
    report = distil(
        [targets_in(shared)], str(tmp_path), TRAIN.model_copy(update={"use_labels": False}), OPTIONS
    )
    assert report.about["heads"]["right_means"] == "the teacher's probability of it"
    assert "accuracy" not in report.about["evaluation"]["test"]["metrics"]


# ------------------------------------------------------------------------------------------------ faults


def test_without_frames_it_says_what_to_run(tmp_path: Path) -> None:
    manifest = make_manifest_in(tmp_path)
    report = teach(
        str(manifest), str(tmp_path / "out"), tiny_spec(), TeachOptions(batch_size=4, num_threads=1)
    )
    with pytest.raises(SettingsError, match="run `locum frames"):
        distil([report.store.url], str(tmp_path / "s"), TRAIN, OPTIONS)


def make_manifest_in(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "archive").mkdir(exist_ok=True)
    return make_manifest(tmp_path / "archive", **changes)  # type: ignore[arg-type]


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
    shared: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises((ModelError, SettingsError), match=says):
        distil([targets_in(shared)], str(tmp_path), TRAIN.model_copy(update=change), OPTIONS)
    assert not list(tmp_path.iterdir())


def test_nothing_is_calibrated_on_what_the_teacher_learnt_from(shared: Path, tmp_path: Path) -> None:
    told = TRAIN.model_copy(update={"teacher_trained_on": ("calibration",)})
    with pytest.raises(SettingsError, match="the teacher's own training videos"):
        distil([targets_in(shared)], str(tmp_path), told, OPTIONS)


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
    shared: Path, tmp_path: Path, mirror: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        distil([targets_in(shared)], str(tmp_path), TRAIN.model_copy(update={"mirror": mirror}), OPTIONS)


def test_a_removal_while_training_is_said(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh()

    def remove_and_stop(_: TrainProgress) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS, on_progress=remove_and_stop)
    gone = read(ShardStore.open(targets), ["video_id"])["video_id"][0].as_py()
    prune(targets, videos=[gone])
    keep_frames(targets, keep=KEEP)
    report = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)  # of what is there now: another student
    said = [
        row
        for path in (Path(report.url) / "predictions").iterdir()
        for row in pq.read_table(path)["video_id"].to_pylist()
    ]
    assert gone not in said and report.trained_now


def test_the_command_trains_exports_and_prints_intervals(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        *("--student-kwargs", '{"width": 4}', "--epochs", "1", "--final-epochs", "0", "--batch-size", "8"),
        *("--device", "cpu", "--num-threads", "1"),
        *(word for name in CLASSES for word in ("--classes", name)),
    ]
    assert locum(["distill", targets_in(shared), "-o", str(tmp_path), *flags]) == 0
    out, err = capsys.readouterr()
    assert "student_right_auroc_gain" in out and "epoch 1/1" in err
    assert Path(out.splitlines()[-1], "student.pt2").exists()
    assert locum(["distill", str(tmp_path / "none"), "-o", str(tmp_path)]) == 4
    assert locum(["distill", "-o", str(tmp_path)]) == 2


# --------------------------------------------------------------------------------- another student, another name


def test_a_corrected_label_makes_another_student(fresh: Callable[..., str], tmp_path: Path) -> None:
    targets = fresh()
    first = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    path = tmp_path / "archive" / "m.csv"
    path.write_text(path.read_text().replace("run", "jump"))
    again = make(tmp_path)
    assert again == targets
    second = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    assert second.trained_now and second.url != first.url


def test_other_starting_weights_make_another_student(shared: Path, tmp_path: Path) -> None:
    urls = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small3d.build(5, width=4)
        path = tmp_path / f"w{seed}.safetensors"
        safetensors.torch.save_file({k: v.clone() for k, v in model.state_dict().items()}, path)
        spec = TRAIN.model_copy(update={"student_weights": str(path), "epochs": 1, "final_epochs": 0})
        urls.append(distil([targets_in(shared)], str(tmp_path / "s"), spec, OPTIONS).url)
    assert urls[0] != urls[1]


def test_a_student_of_labels_alone_sees_only_clips_that_have_one(tmp_path: Path) -> None:
    path = make_manifest_in(tmp_path)
    rows = path.read_text().splitlines()
    path.write_text(
        "\n".join(r if i % 2 else r.replace("walk", "").replace("run", "") for i, r in enumerate(rows))
    )
    targets = make(tmp_path)
    both = distil([targets], str(tmp_path / "s"), TRAIN, OPTIONS)
    alone = distil([targets], str(tmp_path / "s"), TRAIN.model_copy(update={"label_weight": 1.0}), OPTIONS)
    assert sum(alone.about["clips"].values()) < sum(both.about["clips"].values())


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


def frames_in(folder: Path) -> str:
    (found,) = (folder / "out").glob("frames-*")
    return str(found)
