"""Distilling on small real files: what is learnt, that it repeats, resumes, and comes with all that is known of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from jobs.cli import run as locum
from jobs.distill import distil
from jobs.frames import keep_frames
from jobs.prune import prune
from pipeline.distill.loop import TrainProgress
from pipeline.models import small3d
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.errors import SettingsError
from schemas.student import TrainSpec
from schemas.targets import LogitsSpec
from tests.jobs.distilling import (
    CLASSES,
    KEEP,
    OPTIONS,
    TRAIN,
    make,
    make_manifest_in,
    same,
    targets_in,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_students")]


def test_a_student_comes_with_all_that_is_to_be_known_of_it(shared_stores: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared_stores)], str(tmp_path), TRAIN, OPTIONS)
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


def test_predictions_are_of_the_right_clips(shared_stores: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared_stores)], str(tmp_path), TRAIN, OPTIONS)
    said = pq.read_table(Path(report.url) / "predictions" / "test.parquet").to_pylist()
    rows = read(
        ShardStore.open(targets_in(shared_stores)), ["video_id", "start_us", "top1", "label", "split"]
    ).to_pylist()
    by_key = {(r["video_id"], r["start_us"]): r for r in rows}
    assert {(r["video_id"], r["start_us"]) for r in said} == {
        k for k, r in by_key.items() if r["split"] == "test"
    }
    for r in said:
        truth = by_key[r["video_id"], r["start_us"]]
        assert r["teacher_top1"] == truth["top1"] and CLASSES[r["label"]] == truth["label"]


@pytest.mark.filterwarnings("error:No complete tensor")
def test_the_exported_student_runs_with_torch_alone(shared_stores: Path, tmp_path: Path) -> None:
    report = distil([targets_in(shared_stores)], str(tmp_path), TRAIN, OPTIONS)
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


def test_running_again_returns_what_is_there(shared_stores: Path, tmp_path: Path) -> None:
    first = distil([targets_in(shared_stores)], str(tmp_path), TRAIN, OPTIONS)
    again = distil([targets_in(shared_stores)], str(tmp_path), TRAIN, OPTIONS)
    assert again.url == first.url and not again.trained_now and again.about == first.about
    other = distil([targets_in(shared_stores)], str(tmp_path), TRAIN.model_copy(update={"seed": 6}), OPTIONS)
    assert other.url != first.url and not same(weights(other), weights(first))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3, 9, 14])
def test_a_run_that_was_stopped_ends_at_the_same_weights(
    shared_stores: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.distill.loop.CHECKPOINT_SECONDS", 0.0)
    whole = distil([targets_in(shared_stores)], str(tmp_path / "whole"), TRAIN, OPTIONS)
    told: list[TrainProgress] = []

    def stop(p: TrainProgress) -> None:
        told.append(p)
        if p.step == step:
            raise Stopped

    with pytest.raises(Stopped):
        distil([targets_in(shared_stores)], str(tmp_path / "cut"), TRAIN, OPTIONS, on_progress=stop)
    again: list[int] = []
    cut = distil(
        [targets_in(shared_stores)],
        str(tmp_path / "cut"),
        TRAIN,
        OPTIONS,
        on_progress=lambda p: again.append(p.step),
    )
    assert told[-1].step == step < told[-1].steps and again[0] == step
    assert same(weights(cut), weights(whole))
    timeless = [[{**r, "seconds": 0} for r in report.about["history"]] for report in (cut, whole)]
    assert timeless[0] == timeless[1]


def test_patience_ends_early_and_the_best_weights_are_kept(shared_stores: Path, tmp_path: Path) -> None:
    spec = TRAIN.model_copy(update={"epochs": 30, "patience": 2, "final_epochs": 0, "learning_rate": 0.3})
    report = distil([targets_in(shared_stores)], str(tmp_path), spec, OPTIONS)
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


def test_a_multi_label_student_learns(shared_stores: Path, tmp_path: Path) -> None:
    spec = TrainSpec(**{**TRAIN.model_dump(), "multi_label": True, "label_weight": 0.0})
    history = distil([targets_in(shared_stores)], str(tmp_path), spec, OPTIONS).about["history"]
    assert history[2]["train_loss"] < history[0]["train_loss"]


def test_without_labels_the_teacher_is_taken_at_its_word(shared_stores: Path, tmp_path: Path) -> None:
    report = distil(
        [targets_in(shared_stores)], str(tmp_path), TRAIN.model_copy(update={"use_labels": False}), OPTIONS
    )
    assert report.about["heads"]["right_means"] == "the teacher's probability of it"
    assert "accuracy" not in report.about["evaluation"]["test"]["metrics"]


# ------------------------------------------------------------------------------------------------ faults


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
    shared_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        *("--student-kwargs", '{"width": 4}', "--epochs", "1", "--final-epochs", "0", "--batch-size", "8"),
        *("--device", "cpu", "--num-threads", "1"),
        *(word for name in CLASSES for word in ("--classes", name)),
    ]
    assert locum(["distill", targets_in(shared_stores), "-o", str(tmp_path), *flags]) == 0
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


def test_other_starting_weights_make_another_student(shared_stores: Path, tmp_path: Path) -> None:
    urls = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small3d.build(5, width=4)
        path = tmp_path / f"w{seed}.safetensors"
        safetensors.torch.save_file({k: v.clone() for k, v in model.state_dict().items()}, path)
        spec = TRAIN.model_copy(update={"student_weights": str(path), "epochs": 1, "final_epochs": 0})
        urls.append(distil([targets_in(shared_stores)], str(tmp_path / "s"), spec, OPTIONS).url)
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
