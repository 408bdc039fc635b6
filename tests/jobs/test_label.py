"""Labelling small real videos: the run does what the simulator says, resumes, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.cli import run as locum
from jobs.distill import distil
from jobs.frames import keep_frames
from jobs.label import LabelOptions, label
from jobs.labelling.inputs import read_policy
from jobs.selecting.costs import student_seconds
from jobs.selecting.judged import judged, learnt_from, open_student, targets_of
from pipeline.runner import RunSettings
from pipeline.select.policies import policy_of
from pipeline.store.read import read
from pipeline.store.verify import verify
from pipeline.tasks.label import LabelTask
from schemas.errors import SettingsError
from schemas.labels import LabelSpec
from schemas.policy import AggregationName, CostSpec, PolicySpec
from tests.jobs.distilling import CLASSES, KEEP, OPTIONS, TRAIN, targets_in
from tests.jobs.labelled_archive import CERTIFICATE, add_policy, middle, run, simulation, student_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("learnt_elsewhere")]


@pytest.mark.parametrize(
    ("kind", "settings", "aggregation"),
    [
        ("clip-threshold", {"score": "entropy"}, "replace-mean"),
        ("clip-threshold", {"score": "msp"}, "log-pool"),
        ("video-threshold", {"score": "margin"}, "confidence-weighted"),
        ("video-part", {"score": "margin", "part": 0.5, "threshold": 0.15}, "teacher-only"),
        ("clip-threshold", {"score": "gain-in-context"}, "replace-mean"),
        ("top-k", {"score": "gain", "k": 1}, "teacher-only"),
        ("coarse-to-fine", {"strides": (2, 1), "exit_margin": 0.1}, "replace-mean"),
        (
            "coarse-to-fine",
            {"strides": (2, 1), "exit_margin": 0.5, "threshold": 0.01, "score": "gain-in-context"},
            "replace-mean",
        ),
        ("random-k", {"k": 1, "with_student": True}, "control-variate"),
        ("uniform-k", {"k": 1}, "replace-mean"),
        ("dense", {}, "replace-mean"),
        ("student-alone", {}, "replace-mean"),
    ],
)
@pytest.mark.parametrize("decodings", [1, 2])
def test_the_run_does_what_the_simulator_says(
    trained: Path,
    tmp_path: Path,
    kind: str,
    settings: dict[str, object],
    aggregation: AggregationName,
    decodings: int,
) -> None:
    if kind.endswith("threshold"):
        settings = {**settings, "threshold": middle(trained, str(settings["score"]))}
    policy = PolicySpec(kind=kind, **settings)  # type: ignore[arg-type]
    name = add_policy(trained, policy, aggregation, name=f"{kind}-{aggregation}-{policy.score}")
    report = run(trained, tmp_path, name, decodings=decodings)
    twice = kind not in ("uniform-k", "dense", "student-alone") and decodings == 2
    assert report.decodings.number == (2 if twice else 1)
    assert report.complete and report.counts.rows == report.counts.planned > 0
    assert verify(report.store).clean
    sim = simulation(trained)
    decision = policy_of(policy).select(sim.known.scores)
    wanted = sim.labels(decision, aggregation)
    rows = read(report.store)
    where = {
        key: i
        for i, key in enumerate(zip(rows["video_id"].to_pylist(), rows["start_us"].to_pylist(), strict=True))
    }
    scores = sim.known.scores
    at = [
        where[scores.ids_V[v], s]
        for v, s in zip(scores.video_N.tolist(), scores.start_us_N.tolist(), strict=True)
    ]
    mine = rows.take(pa.array(at))
    assert mine["deferred"].to_pylist() == decision.teacher_N.tolist()
    assert [x is not None for x in mine["student_logits"].to_pylist()] == decision.student_N.tolist()
    videos = report.labels.table
    said = dict(zip(videos["video_id"].to_pylist(), videos["top1"].to_pylist(), strict=True))
    assert [said[i] for i in scores.ids_V] == wanted.tolist()
    names = dict(zip(videos["video_id"].to_pylist(), videos["top1_name"].to_pylist(), strict=True))
    assert [names[i] for i in scores.ids_V] == [CLASSES[k] for k in wanted]
    by = mine["answered_by"].to_pylist()
    expected = np.where(decision.teacher_N, "teacher", np.where(decision.student_N, "student", "none"))
    assert by == expected.tolist()
    if kind in ("clip-threshold", "video-threshold"):
        assert 0 < decision.teacher_N.sum() < len(at)


def test_money_is_seconds_by_the_prices_of_the_policy(trained: Path, tmp_path: Path) -> None:
    rule = PolicySpec(kind="top-k", k=1, score="msp")
    prices = CostSpec(decode_price=1.0, student_price=2.0, teacher_price=30.0)
    priced = run(trained, tmp_path, add_policy(trained, rule, name="priced", costs=prices)).labels
    for row in priced.table.to_pylist():
        wanted = (row["decode_s"] + 2 * row["student_s"] + 30 * row["teacher_s"]) / 3600
        assert row["money"] == pytest.approx(wanted) and row["teacher_s"] > 0
    assert priced.to_json()["money"] == pytest.approx(sum(priced.table["money"].to_pylist()))
    free = run(trained, tmp_path / "free", add_policy(trained, rule, name="free")).labels
    assert free.table["money"].null_count == free.table.num_rows and free.to_json()["money"] is None


def test_a_student_of_keyframes_has_a_decoding_of_its_own(trained: Path, tmp_path: Path) -> None:
    kept = keep_frames(targets_in(trained), str(tmp_path), KEEP.model_copy(update={"key_frames": True}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.distill.evaluate.NUM_DRAWS", 20)
        options = replace(OPTIONS, frames=kept.store.url)
        student = open_student(distil([targets_in(trained)], str(tmp_path), TRAIN, options).url)
    rule = PolicySpec(kind="top-k", k=1, score="msp")
    add_policy(trained, rule, name="keyframes", student_url=student.url)
    source = str(trained / "archive" / "m.csv")
    given = LabelOptions(num_threads=1, shard_clips=12, decodings=1)  # there is no choice
    report = label(source, str(tmp_path), student.url, "keyframes", given)
    assert report.complete and verify(report.store).clean and report.decodings.number == 2
    videos = judged(student, "test", targets_of(student)).tempered(1.3, 0.9).known()
    decision = policy_of(rule).select(videos.scores)
    rows = read(report.store, ["video_id", "start_us", "deferred"]).to_pylist()
    said = {(r["video_id"], r["start_us"]): r["deferred"] for r in rows}
    keys = zip(videos.scores.video_N.tolist(), videos.scores.start_us_N.tolist(), strict=True)
    assert [said[videos.scores.ids_V[v], s] for v, s in keys] == decision.teacher_N.tolist()


def test_an_interrupted_run_ends_at_the_same_labels(trained: Path, tmp_path: Path) -> None:
    policy = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="again")
    whole = run(trained, tmp_path / "whole", policy)
    first = run(trained, tmp_path / "parts", policy, settings=RunSettings(max_seconds=0.0))
    assert not first.complete and first.counts.rows == 0
    calls = 0

    def stop(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(
            str(trained / "archive" / "m.csv"),
            str(tmp_path / "parts"),
            student_in(trained),
            policy,
            LabelOptions(num_threads=1, shard_clips=12),
            on_progress=stop,
        )
    again = run(trained, tmp_path / "parts", policy)
    assert again.complete and again.store.document.fingerprint == whole.store.document.fingerprint
    keep = [n for n in read(whole.store).column_names if not n.endswith("_ms")]
    assert read(again.store, keep).equals(read(whole.store, keep))


def test_frames_that_do_not_fit_into_memory_wait_on_disk(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = add_policy(trained, PolicySpec(kind="top-k", k=2, score="msp"), name="held")
    whole = run(trained, tmp_path / "a", policy)
    monkeypatch.setattr("jobs.label.LabelTask", lambda *a, **kw: replace(LabelTask(*a, **kw), held_bytes=1))
    spilled = run(trained, tmp_path / "b", policy)
    keep = [n for n in read(whole.store).column_names if not n.endswith("_ms")]
    assert read(spilled.store, keep).equals(read(whole.store, keep))


def test_a_student_alone_needs_no_frames_of_the_teacher(trained: Path, tmp_path: Path) -> None:
    report = run(trained, tmp_path, add_policy(trained, PolicySpec(kind="student-alone"), name="alone"))
    task = LabelTask(LabelSpec(**report.store.document.spec))
    assert task.request.also == () and not task.asks_teacher
    assert report.labels.to_json()["deferred"] == 0 and report.labels.to_json()["teacher_s"] == 0.0


def test_audits_ask_about_whole_videos_and_change_no_label(trained: Path, tmp_path: Path) -> None:
    policy = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="audited")
    plain = run(trained, tmp_path / "plain", policy)
    audited = run(trained, tmp_path / "all", policy, audit_share=1.0)
    dense = run(trained, tmp_path / "dense", add_policy(trained, PolicySpec(kind="dense"), name="all-of-it"))
    some = run(trained, tmp_path / "some", policy, audit_share=0.4, audit_seed=3)
    labels = [r.labels.table["top1"].to_pylist() for r in (plain, audited, some)]
    assert labels[0] == labels[1] == labels[2]
    assert audited.labels.table["audit_top1"].to_pylist() == dense.labels.table["top1"].to_pylist()
    assert 0 < some.audit.videos < audited.audit.videos == 18
    assert plain.audit.to_json()["disagreement"] is None and plain.audit.to_json()["at_most"] is None
    same = np.mean([a == b for a, b in zip(labels[1], dense.labels.table["top1"].to_pylist(), strict=True)])
    assert audited.audit.to_json()["disagreement"] == pytest.approx(1 - same)
    assert audited.audit.groups == 18 and audited.audit.drift is None
    tested = run(trained, tmp_path / "all", policy, audit_share=1.0, max_disagreement=0.01).audit.drift
    assert tested is not None and (tested.groups, tested.losses) == (18, round(18 * (1 - same)))
    assert tested.alarm == (tested.e_value >= 20)
    fewer = read(plain.store)["teacher_logits"].null_count
    assert (
        fewer
        > read(some.store)["teacher_logits"].null_count
        > 0
        == read(audited.store)["teacher_logits"].null_count
    )


def test_damaged_videos_are_quarantined_and_the_others_labelled(trained: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(trained / "archive", archive)
    broken = archive / "videos" / "v03.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    policy = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="damaged")
    options = LabelOptions(num_threads=1)
    report = label(str(archive / "m.csv"), str(tmp_path / "out"), student_in(trained), policy, options)
    assert report.complete and verify(report.store).clean
    assert report.labels.table.num_rows == 17 == report.counts.videos - 1


def test_a_certificate_holds_where_the_student_says_what_it_said(trained: Path, tmp_path: Path) -> None:
    rule = PolicySpec(kind="top-k", k=1, score="msp")
    policy = add_policy(trained, rule, name="certified", certificate=CERTIFICATE)
    report = run(trained, tmp_path / "a", policy)
    assert report.complete and report.to_json()["certificate"]["alpha"] == 0.1
    said = Path(student_in(trained)) / "predictions" / "calibration.parquet"
    before = said.read_bytes()
    table = pq.read_table(said)
    logits = table["logits"].combine_chunks()
    turned = np.stack(logits.to_numpy(zero_copy_only=False))[:, ::-1].astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(turned.ravel()), type=logits.type)
    pq.write_table(table.set_column(table.column_names.index("logits"), "logits", column), said)
    try:
        with pytest.raises(SettingsError, match="the certificate is void here: of the clip at"):
            run(trained, tmp_path / "b", policy)
    finally:
        said.write_bytes(before)
    add_policy(trained, rule, name="not-certified")
    assert run(trained, tmp_path / "b", "not-certified").complete


def test_a_student_is_timed_with_its_view(trained: Path) -> None:
    assert 1e-6 < student_seconds(open_student(student_in(trained))) < 1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "0" * 32}, "the student differ"),
        ({"weights_sha256": "0" * 64}, "weights differ"),
        ({"program_sha256": "0" * 64}, "is not the one that policy"),
        ({"frames": "0" * 32}, "the student's view differ"),
        ({"targets": "0" * 32}, "targets differ"),
        ({"classes": CLASSES[::-1]}, "classes differ"),
    ],
)
def test_a_policy_of_something_else_is_refused(
    trained: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    add_policy(trained, PolicySpec(kind="dense"), name="other", **changes)
    with pytest.raises(SettingsError, match=message):
        run(trained, tmp_path, "other")
    assert not list(tmp_path.glob("*"))


def test_policies_that_are_not_there_or_cannot_be_read(trained: Path, tmp_path: Path) -> None:
    student = open_student(student_in(trained))
    add_policy(trained, PolicySpec(kind="dense"), name="known")
    with pytest.raises(SettingsError, match=r"has no policy 'nothing'; it has .*known"):
        read_policy(student, "nothing")
    path = tmp_path / "broken.json"
    path.write_text("{}")
    with pytest.raises(SettingsError, match="is no policy"):
        read_policy(student, str(path))
    shutil.copy(Path(student.url) / "policies" / "known.json", path)
    assert read_policy(student, str(path)).name == "known"


def test_another_teacher_is_refused(trained: Path, tmp_path: Path) -> None:
    policy = add_policy(trained, PolicySpec(kind="dense"), name="teacher")
    store = targets_of(open_student(student_in(trained)))
    other = tmp_path / "targets"
    shutil.copytree(store.url, other)
    body = json.loads((other / "spec.json").read_text())
    body["spec"]["precision"] = "bf16"
    (other / "spec.json").write_text(json.dumps(body))
    with pytest.raises(SettingsError, match="the teacher is not what it was"):
        run(trained, tmp_path / "out", policy, targets=str(other))


def test_as_a_command_on_ray(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="command")
    argv = [
        "label",
        str(trained / "archive" / "m.csv"),
        "-o",
        str(tmp_path),
        "--student",
        student_in(trained),
    ]
    argv += ["--policy", policy, "--workers", "1", "-q"]
    assert locum([*argv, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["complete"] and body["labelled"]["videos"] == 18 == body["labelled"]["deferred"]
    table = pq.read_table(body["videos_file"])
    here = run(trained, tmp_path / "here", policy)
    assert table["top1"].to_pylist() == here.labels.table["top1"].to_pylist()
    assert locum(argv) == 0
    assert "the teacher was asked about 18 of" in capsys.readouterr().out


def test_what_models_were_made_from_counts_neither_as_right_nor_as_audited(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = open_student(student_in(trained))
    held_out = set()
    for split in ("calibration", "test"):
        rows = student.predictions(split).to_pylist()
        held_out |= {r["video_id"] for r in rows if not r["fitted"] and not r["known_to_teacher"]}
    monkeypatch.setattr("jobs.label.learnt_from", learnt_from)
    name = add_policy(trained, PolicySpec(kind="student-alone"), name="learnt")
    report = run(trained, tmp_path, name, audit_share=1.0)
    table = report.labels.table
    learnt = dict(zip(table["video_id"].to_pylist(), table["learnt"].to_pylist(), strict=True))
    assert {v for v, was in learnt.items() if not was} == held_out and 0 < len(held_out) < len(learnt)
    said = report.labels.to_json()
    assert said["labelled_videos"] == len(held_out)
    assert said["labelled_videos_learnt_from"] == len(learnt) - len(held_out)
    assert report.audit.videos == len(held_out) and report.audit.left_out == len(learnt) - len(held_out)
    rights = [row["label"] == row["top1_name"] for row in table.to_pylist() if row["video_id"] in held_out]
    assert said["accuracy"] == pytest.approx(np.mean(rights))
    seconds = read(report.store, ["teacher_ms", "deferred"])
    audited = seconds.filter(pc.invert(seconds["deferred"]))["teacher_ms"].to_numpy().sum() / 1e3
    assert pc.sum(table["audit_s"]).as_py() == pytest.approx(audited, rel=1e-4)
