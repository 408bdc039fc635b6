"""The table of metrics: against numbers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.distill.evaluate import evaluate, video_rights
from pipeline.distill.predict import prediction_schema


def predictions(num_clips: int = 60, *, labelled: bool = True, seed: int = 0) -> pa.Table:
    """Two clips a video, two videos a group; the student is right about two thirds."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, num_clips)
    said = np.where(rng.random(num_clips) < 0.66, label, (label + 1) % 3)
    logits = rng.normal(0, 0.3, (num_clips, 3)).astype(np.float32)
    logits[np.arange(num_clips), said] += 3
    right = said == label
    schema = prediction_schema(3)
    columns = {
        "video_id": [f"v{i // 2}" for i in range(num_clips)],
        "start_us": np.arange(num_clips),
        "end_us": np.arange(num_clips) + 1,
        "group": (np.arange(num_clips) // 4).astype(np.uint64),
        "fitted": np.zeros(num_clips, np.bool_),
        "known_to_teacher": np.zeros(num_clips, np.bool_),
        "label": pa.array(label, pa.int32(), mask=np.full(num_clips, not labelled)),
        "teacher_top1": np.where(np.arange(num_clips) % 5 == 0, (label + 1) % 3, label),
        "teacher_msp": np.full(num_clips, 0.9),
        "logits": pa.FixedSizeListArray.from_arrays(
            pa.array(logits.ravel()), type=schema.field("logits").type
        ),
        "student_right": np.where(right, 0.8, 0.2),
        "teacher_right": np.full(num_clips, 0.5),
        "kl": np.full(num_clips, 0.25),
    }
    arrays = [c if isinstance(c := columns[f.name], pa.Array) else pa.array(c, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def test_values_are_those_counted_by_hand() -> None:
    table = predictions()
    logits = np.stack(table["logits"].to_numpy())
    label = table["label"].to_numpy()
    found = evaluate(table, num_draws=50)
    assert (found.clips, found.videos, found.groups, found.labelled_clips) == (60, 30, 15, 60)
    values = {name: m.value for name, m in found.metrics.items()}
    assert values["accuracy"] == pytest.approx((logits.argmax(1) == label).mean())
    assert values["teacher_accuracy"] == pytest.approx(0.8)
    assert values["kl"] == pytest.approx(0.25)
    assert values["student_right_auroc"] == 1.0  # it knows exactly
    assert values["teacher_right_auroc"] == 0.5  # it knows nothing
    gain = values["student_right_auroc"] - values["student_right_auroc_of_msp"]
    assert values["student_right_auroc_gain"] == pytest.approx(gain)
    for metric in found.metrics.values():
        assert metric.low <= metric.value <= metric.high or np.isclose(metric.low, metric.high)


def test_intervals_are_wider_where_there_is_less() -> None:
    few, many = (evaluate(predictions(n), num_draws=300).metrics["accuracy"] for n in (40, 1000))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_without_labels_agreement_is_what_is_judged() -> None:
    found = evaluate(predictions(labelled=False), by_label=False, num_draws=20)
    assert "accuracy" not in found.metrics and "teacher_right_auroc" not in found.metrics
    assert {"agreement", "kl", "ece", "student_right_auroc"} <= found.metrics.keys()


def test_a_video_is_right_where_the_mean_of_its_clips_is() -> None:
    probs = np.array([[0.6, 0.4], [0.1, 0.9], [0.9, 0.1]])
    assert video_rights(probs, np.array([1, 1, 1]), np.array([0, 0, 1])).tolist() == [True, False]


def marked(table: pa.Table, name: str, rows: np.ndarray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(rows))


def test_heads_are_not_judged_where_they_were_fitted_nor_the_teacher_on_its_own_videos() -> None:
    table = predictions()
    first = np.arange(60) < 32
    rest = evaluate(table.slice(32), num_draws=20)
    fitted = evaluate(marked(table, "fitted", first), num_draws=20)
    for name in ("student_right_auroc", "teacher_right_ece", "teacher_right_auroc_of_teacher_msp"):
        assert fitted.metrics[name].value == rest.metrics[name].value
    assert fitted.metrics["accuracy"].value == evaluate(table, num_draws=20).metrics["accuracy"].value
    known = evaluate(marked(table, "known_to_teacher", first), num_draws=20)
    for name in ("teacher_accuracy", "teacher_right_ece"):
        assert known.metrics[name].value == rest.metrics[name].value
    assert (
        known.metrics["student_right_ece"].value
        == evaluate(table, num_draws=20).metrics["student_right_ece"].value
    )
    nowhere = evaluate(marked(table, "known_to_teacher", np.ones(60, np.bool_)), num_draws=20).metrics
    assert "teacher_accuracy" not in nowhere and "teacher_right_auroc" not in nowhere


def test_one_group_has_no_interval() -> None:
    metric = evaluate(predictions(4), num_draws=20).to_json()["metrics"]["accuracy"]
    assert metric["value"] is not None and metric["low"] is None and metric["high"] is None


def test_it_repeats_and_refuses_nothing() -> None:
    table = predictions()
    assert evaluate(table, num_draws=20).to_json() == evaluate(table, num_draws=20).to_json()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(table.slice(0, 0))


def test_one_kind_alone_has_no_ranking() -> None:
    table = predictions()
    at = table.schema.get_field_index("teacher_top1")
    perfect = table.set_column(at, table.schema.field(at), table["label"])
    assert evaluate(perfect, num_draws=20).to_json()["metrics"]["teacher_right_auroc"]["value"] is None
