"""Wishes become policies, on videos that nothing was fitted on; guarantees, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.calibrate import CalibrateOptions, calibrate
from jobs.cli import run as locum
from jobs.selecting.costs import costs_of
from jobs.selecting.judged import judged, open_student
from jobs.simulate import SimulateOptions, simulate
from pipeline.select.calibrate import disagreements
from pipeline.select.context import Context
from pipeline.select.learn_then_test import one_of_each_group
from pipeline.store.mend import remove
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.errors import EXIT_SETTINGS, SettingsError
from schemas.policy import CostFlags, PolicyDocument, PolicySpec, Wish
from tests.jobs.judging import make_judged


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ShardStore]:
    return make_judged(tmp_path_factory.mktemp("judged"), 640)


@pytest.fixture(autouse=True)
def _no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The students here are made up: there is no network to be timed."""
    monkeypatch.setattr("jobs.selecting.costs.student_seconds", lambda student: 0.005)


def document(student: str, name: str) -> PolicyDocument:
    return PolicyDocument.model_validate_json((Path(student) / "policies" / f"{name}.json").read_text())


def test_wishes_are_met_on_the_videos_that_one_may_choose_on(made: tuple[str, ShardStore]) -> None:
    student, _ = made
    for wish, meets in (
        (Wish(budget=0.2), lambda d: d.expected.share <= 0.2),
        (Wish(max_cost=0.7), lambda d: d.expected.ratio <= 0.7),
        (Wish(accuracy_drop=0.02), lambda d: d.expected.gain >= -0.02),
    ):
        report = calibrate(student, wish)
        assert meets(report.document) and report.document.certificate is None
        assert document(student, report.document.name) == report.document
        assert report.document.expected.share > 0
    more = calibrate(student, Wish(budget=0.5)).document.expected
    assert more.accuracy >= calibrate(student, Wish(budget=0.2)).document.expected.accuracy  # type: ignore[operator]


def test_budgets_of_nothing_and_of_all(made: tuple[str, ShardStore]) -> None:
    student, _ = made
    assert calibrate(student, Wish(budget=0.0)).document.expected.share == 0.0
    everything = CalibrateOptions(kinds=("budget",), name="all")
    assert calibrate(student, Wish(budget=1.0), everything).document.policy.share == 1.0


def test_a_guarantee_comes_from_groups_that_nothing_else_read(made: tuple[str, ShardStore]) -> None:
    student, store = made
    report = calibrate(student, Wish(max_disagreement=0.15))
    doc, c = report.document, report.document.certificate
    assert c is not None and c.look == 1 and c.member > 0 and c.p_value <= c.tested_at == c.delta == 0.05
    assert doc.expected.share < 1.0
    assert c.groups == c.named_groups == 80 and c.left_out == {"the heads were fitted on its group": 160}
    held = judged(open_student(student), "calibration", store)
    context = None if doc.context is None else Context((doc.context,))
    known = held.where(~held.fitted_N).tempered(doc.student_temperature).known(context)
    rows = one_of_each_group(known.group_V, known.scores.hash_V, 0)
    assert disagreements(known, [doc.policy], doc.aggregation)[0, rows].sum() == c.losses
    again = calibrate(student, Wish(max_disagreement=0.15)).document
    assert again.certificate == c and again.policy == doc.policy


def test_another_look_at_the_same_groups_is_tested_harder(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 640)
    first = calibrate(student, Wish(max_disagreement=0.15)).document.certificate
    second = calibrate(student, Wish(max_disagreement=0.2)).document.certificate
    assert first is not None and second is not None
    assert (first.look, second.look) == (1, 2) and second.tested_at == first.tested_at / 2
    assert second.spent == pytest.approx(1.5 * first.spent) and first.spent == first.tested_at
    assert sorted(p.name for p in (Path(student) / "policies" / "looks").glob("*")) == [
        "001.json",
        "002.json",
    ]
    written = json.loads((Path(student) / "policies" / "looks" / "002.json").read_text())
    assert written["digest"] == second.sequence and written["members"][0]["kind"] == "dense"


def test_the_sequence_hangs_on_nothing_of_the_groups_that_certify(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 640)
    wish = Wish(max_disagreement=0.15)
    first = calibrate(student, wish).document
    path = Path(student) / "predictions" / "calibration.parquet"
    table = pq.read_table(path)
    logits = np.stack(table["logits"].to_numpy())
    free = ~table["fitted"].to_numpy()
    logits[free] = np.random.default_rng(0).normal(size=(free.sum(), 3)).astype(np.float32)
    kind = table.schema.field("logits").type
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel().astype(np.float32)), type=kind)
    pq.write_table(
        table.set_column(table.column_names.index("logits"), table.schema.field("logits"), column), path
    )
    second = calibrate(student, wish).document
    written = [json.loads(p.read_text()) for p in sorted((Path(student) / "policies" / "looks").glob("*"))]
    assert len(written) == 2 and written[0]["data"] != written[1]["data"]
    for name in ("members", "student_temperature", "aggregation", "salt"):
        assert written[0][name] == written[1][name], name
    assert first.certificate is not None and second.certificate is not None
    assert second.certificate.member < first.certificate.member  # it was noise


def test_a_look_that_could_certify_nothing_is_not_spent(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 1240)
    looks = Path(student) / "policies" / "looks"
    calibrate(student, Wish(max_disagreement=0.02))
    assert len(list(looks.glob("*"))) == 1
    with pytest.raises(SettingsError, match="needs 183 at least"):
        calibrate(student, Wish(max_disagreement=0.02), CalibrateOptions(seed=1, overwrite=True))
    assert len(list(looks.glob("*"))) == 1


def test_another_calibration_does_not_take_a_policys_place_unasked(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path)
    kept = calibrate(student, Wish(budget=0.4)).document
    assert (
        calibrate(student, Wish(budget=0.4)).document.policy == kept.policy
    )  # the same one may be made again
    path = Path(student) / "policies" / "budget-0.4.json"
    before = path.read_bytes()
    for wish, options in (
        (Wish(budget=0.4), CalibrateOptions(kinds=("video-threshold",))),
        (Wish(budget=0.4), CalibrateOptions(scores=("msp",))),
        (Wish(budget=0.2), CalibrateOptions(name="budget-0.4")),
    ):
        with pytest.raises(SettingsError, match="already, calibrated for another wish or among others"):
            calibrate(student, wish, options)
    assert path.read_bytes() == before
    other = CalibrateOptions(kinds=("video-threshold",), overwrite=True)
    assert calibrate(student, Wish(budget=0.4), other).document.policy.kind == "video-threshold"
    path.write_text("{}")
    with pytest.raises(SettingsError, match="is no policy"):
        calibrate(student, Wish(budget=0.4))


def test_a_control_variate_can_be_calibrated_for_a_teacher_that_is_asked_at_random(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path)
    options = CalibrateOptions(kinds=("random-k",), aggregation="control-variate")
    found = calibrate(student, Wish(budget=0.9), options).document
    assert found.policy.kind == "random-k" and found.policy.with_student
    assert found.aggregation == "control-variate"


def test_too_few_groups_are_said_before_a_look_is_taken(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 160)
    with pytest.raises(SettingsError, match=r"20 groups .* needs 149 at least"):
        calibrate(student, Wish(max_disagreement=0.02))
    assert not list((Path(student)).glob("policies/*/*"))


def test_videos_that_are_not_whole_certify_nothing(tmp_path: Path) -> None:
    student, store = make_judged(tmp_path, 640)
    held = judged(open_student(student), "calibration", store)
    free = sorted({i for i, fitted in zip(held.video_id_N, held.fitted_N, strict=True) if not fitted})
    path = Path(student) / "predictions" / "calibration.parquet"
    table = pq.read_table(path)
    first = [n for n, i in enumerate(table["video_id"].to_pylist()) if i in free[:40]]
    dropped = {table["video_id"][n].as_py(): n for n in first}  # the last clip of each
    keep = np.ones(table.num_rows, bool)
    keep[list(dropped.values())] = False
    pq.write_table(table.filter(pa.array(keep)), path)
    gone = {
        i
        for i in free[:40]
        if not any(k and i == j for k, j in zip(keep, table["video_id"].to_pylist(), strict=True))
    }
    certificate = calibrate(student, Wish(max_disagreement=0.2)).document.certificate
    assert certificate is not None
    assert certificate.left_out["not all of its clips have targets and frames"] == 40 - len(gone)


@pytest.mark.parametrize(
    ("wish", "options", "message"),
    [
        (Wish(max_disagreement=0.15), CalibrateOptions(kinds=("budget",), name="n"), "cannot be guaranteed"),
        (
            Wish(max_disagreement=0.15),
            CalibrateOptions(aggregation="log-pool", name="n"),
            "none can be guaranteed",
        ),
        (Wish(max_cost=0.01), CalibrateOptions(), "the cheapest asks"),
        (Wish(budget=0.5), CalibrateOptions(name="../x"), "cannot be a policy's name"),
        (
            Wish(budget=0.5),
            CalibrateOptions(aggregation="control-variate", name="n"),
            "asked at random: --policy random-k",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    made: tuple[str, ShardStore], wish: Wish, options: CalibrateOptions, message: str
) -> None:
    before = sorted(Path(made[0]).rglob("*"))
    with pytest.raises(SettingsError, match=message):
        calibrate(made[0], wish, options)
    assert sorted(Path(made[0]).rglob("*")) == before


def test_a_drop_of_accuracy_needs_labels(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 240, labels=False)
    with pytest.raises(SettingsError, match="needs labels"):
        calibrate(student, Wish(accuracy_drop=0.01))
    doc = calibrate(student, Wish(budget=0.3)).document
    assert doc.expected.accuracy is None and doc.expected.agreement > 0.8 and doc.teacher_temperature == 1.0


def change(student: str, **said: object) -> None:
    path = Path(student) / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def test_students_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    student, store = make_judged(tmp_path, 80)
    about = json.loads((Path(student) / "student.json").read_text())
    for said, message in (
        ({"targets": about["targets"] * 2}, "2 teachers"),
        ({"train": {"multi_label": True}}, "multi-label"),
        ({"targets": [{"url": store.url, "fingerprint": "9" * 32}]}, "is not what"),
    ):
        change(student, **said)
        with pytest.raises(SettingsError, match=message):
            calibrate(student, Wish(budget=0.2))
        change(student, **about)
    with pytest.raises(SettingsError, match="is no student"):
        calibrate(str(tmp_path), Wish(budget=0.2))
    (Path(student) / "predictions" / "test.parquet").unlink()
    with pytest.raises(SettingsError, match="no predictions of test"):
        simulate([student])


def test_targets_that_were_removed_are_left_out(tmp_path: Path) -> None:
    student, store = make_judged(tmp_path, 80)
    before = simulate([student], SimulateOptions(scores=("gain",), num_draws=100)).about
    held = judged(open_student(student), "test", store)
    remove(store, {held.video_id_N[0]}, "test")
    after = simulate([student], SimulateOptions(scores=("gain",), num_draws=100)).about
    assert after["videos"] == before["videos"] - 1


# ---------------------------------------------------------------- simulate


def test_the_frontier_has_every_policy(made: tuple[str, ShardStore]) -> None:
    report = simulate([made[0]], SimulateOptions(scores=("gain", "msp"), num_draws=100))
    kinds = {p.policy for p in report.points}
    assert kinds == {
        *(
            "dense",
            "student-alone",
            "uniform-k",
            "random-k",
            "clip-threshold",
            "video-threshold",
            "video-part",
            "top-k",
            "budget",
        ),
        *("coarse-to-fine", "gain-oracle", "label-oracle"),
    }
    table = report.table()
    assert table.num_rows == len(report.points)
    (dense,) = (p.outcome for p in report.points if p.policy == "dense")
    assert (dense.ratio, dense.share, dense.agreement.value) == (1.0, 1.0, 1.0)
    assert (
        report.about["clips_per_video"] == {"least": 1, "median": 3.0, "most": 4}
        or report.about["groups"] == 80
    )
    assert set(report.areas) == {"gain", "msp"}
    aggregations = {p.aggregation for p in report.points if p.policy == "clip-threshold"}
    assert aggregations == {"replace-mean", "confidence-weighted", "teacher-only", "log-pool"}
    assert {p.aggregation for p in report.points if p.policy == "random-k"} == {
        "replace-mean",
        "control-variate",
    }


def test_videos_that_the_teacher_learnt_from_are_left_out(tmp_path: Path) -> None:
    student, _ = make_judged(tmp_path, 640)
    options = SimulateOptions(scores=("gain",), num_draws=100)
    before = calibrate(student, Wish(max_disagreement=0.2)).document.certificate
    for split in ("test", "calibration"):
        path = Path(student) / "predictions" / f"{split}.parquet"
        table = pq.read_table(path)
        ids = sorted(set(table["video_id"].to_pylist()))
        some = pa.array([i in ids[:30] for i in table["video_id"].to_pylist()])
        pq.write_table(
            table.set_column(table.column_names.index("known_to_teacher"), "known_to_teacher", some), path
        )
    about = simulate([student], options).about
    assert about["videos"] == 130 and about["clips_left_out_as_known_to_the_teacher"] >= 30
    after = calibrate(student, Wish(max_disagreement=0.2)).document.certificate
    assert before is not None and after is not None and after.groups < before.groups
    assert after.left_out["the teacher learnt from its group"] > 0


def test_costs_of_nothing_are_refused(made: tuple[str, ShardStore]) -> None:
    nothing = CostFlags(open=0.0, decode=0.0, teacher=0.0, student=0.001)
    with pytest.raises(SettingsError, match=r"says nothing of what .* took: give --costs.decode"):
        calibrate(made[0], Wish(max_cost=0.5), CalibrateOptions(costs=nothing))
    some = CostFlags(open=0.0, decode=0.0, teacher=0.01, student=0.001)
    assert calibrate(made[0], Wish(max_cost=0.5), CalibrateOptions(costs=some)).document.expected.ratio <= 0.5


def test_groups_that_are_partly_in_train_are_left_out(tmp_path: Path) -> None:
    # 5 and 14 are certified on, 1 was for the heads, 0 is of val, 3 of test.
    student, _ = make_judged(tmp_path, 640, strays=(5, 14, 1, 0, 3))
    certificate = calibrate(student, Wish(max_disagreement=0.2)).document.certificate
    assert certificate is not None and certificate.groups == 78
    reason = "its group has videos in other splits, or in none, which count as train"
    assert certificate.left_out == {"the heads were fitted on its group": 160, reason: 4}


def test_costs_are_those_of_the_targets_unless_they_are_given(made: tuple[str, ShardStore]) -> None:
    student, store = open_student(made[0]), made[1]
    rows = read(store, ["start_us", "end_us", "decode_ms", "teacher_ms"])
    total = {n: rows[n].to_numpy().sum(dtype=np.float64) for n in rows.column_names}
    found = costs_of(CostFlags(), student, store)
    assert found.open == 0 and found.student == 0.005
    assert found.decode == pytest.approx(
        total["decode_ms"] * 1e-3 / ((total["end_us"] - total["start_us"]) * 1e-6)
    )
    assert found.teacher == pytest.approx(total["teacher_ms"] * 1e-3 / len(rows))
    given = CostFlags(teacher=2.0, decode_price=3.0)
    expected = found.model_copy(update={"teacher": 2.0, "decode_price": 3.0})
    assert costs_of(given, student, store) == expected
    assert simulate([made[0]], SimulateOptions(costs=given, num_draws=100)).costs == expected
    assert calibrate(made[0], Wish(budget=0.3), CalibrateOptions(costs=given)).document.costs == expected


def test_calibration_shows_fitted_clips_only(made: tuple[str, ShardStore]) -> None:
    held = judged(open_student(made[0]), "calibration", made[1])
    shown = simulate([made[0]], SimulateOptions(split="calibration", scores=("gain",), num_draws=100)).about
    assert shown["clips"] == int(held.fitted_N.sum()) < len(held)
    with pytest.raises(SettingsError, match="no split 'train'"):
        simulate([made[0]], SimulateOptions(split="train"))


def test_students_of_folds_are_taken_together(tmp_path: Path, made: tuple[str, ShardStore]) -> None:
    options = SimulateOptions(scores=("gain",), num_draws=100)
    first, _ = make_judged(tmp_path / "a", 240)
    second, _ = make_judged(tmp_path / "b", 240)
    path = Path(second) / "predictions" / "test.parquet"
    table = pq.read_table(path)
    halves = [
        pa.array([int(i[-1], 16) % 2 == part for i in table["video_id"].to_pylist()]) for part in (0, 1)
    ]
    for student, half in zip((first, second), halves, strict=True):
        pq.write_table(table.filter(half), Path(student) / "predictions" / "test.parquet")
    assert (
        simulate([first, second], options).about["videos"] == 60 > simulate([first], options).about["videos"]
    )
    with pytest.raises(SettingsError, match="other videos each"):
        simulate([made[0], made[0]], options)
    with pytest.raises(SettingsError, match="no student was named"):
        simulate([])


def test_as_commands(
    made: tuple[str, ShardStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, _ = made
    table, figure = tmp_path / "t.parquet", tmp_path / "f.svg"
    argv = ["simulate", student, "--draws", "100", "--scores", "gain", "msp", "--table", str(table)]
    assert locum([*argv, "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "dense teacher:" in said and "video-threshold" in said
    assert table.exists() and "<svg" in figure.read_text()
    assert locum(["calibrate", student, "--max-disagreement", "0.15", "--name", "sure"]) == 0
    said = capsys.readouterr().out
    assert "guaranteed: with confidence 0.95" in said and document(student, "sure").certificate is not None
    assert (
        locum(["calibrate", student, "--budget", "0.6", "--json", "--policy", "top-k", "--score", "msp"]) == 0
    )
    body = json.loads(capsys.readouterr().out)
    assert PolicySpec(**body["policy"]).kind == "top-k" and body["path"].endswith("policies/budget-0.6.json")
    for argv in ([], ["--budget", "2"], ["--budget", "0.1", "--max-cost", "0.5"]):
        assert locum(["calibrate", student, *argv]) == EXIT_SETTINGS
