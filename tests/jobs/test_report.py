"""The report: its numbers are those of the stores, and what is gone or refused is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.cli import run as locum
from jobs.label import LabelReport
from jobs.labelling.video_labels import video_labels, write_video_labels
from jobs.report import ReportOptions, report
from jobs.selecting.applied import applied
from jobs.selecting.judged import learnt_from, open_student, targets_of
from pipeline.store.mend import remove
from pipeline.store.read import read
from pipeline.store.shard_store import ShardStore
from schemas.errors import EXIT_SETTINGS, SettingsError
from schemas.labels import StudentRef
from schemas.policy import CostSpec, PolicyDocument, PolicySpec, PriceFlags, Wish
from tests.http_server import answering
from tests.jobs.labelled_archive import EXPECTED, add_policy, run, student_in
from tests.jobs.labelling import EVERY_KIND, Clip, Made, label_spec, make_labels
from tests.pipeline.store.stores import video_id

pytestmark = pytest.mark.slow

SECTIONS = ("look", "cost", "lost", "where", "trust", "unread")
QUICK = ReportOptions(videos=2, pictures=False)


@pytest.fixture(scope="module")
def labelled(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelReport:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="reported")
    return run(trained, tmp_path_factory.mktemp("labelled"), name, audit_share=0.3)


def made_up(folder: Path, videos: list[Made], **changes: object) -> ShardStore:
    """A label store whose student is gone."""
    spec = label_spec(**changes)
    store = make_labels(folder, videos, spec=spec)
    document = PolicyDocument(
        name="made-up",
        student=spec.student.fingerprint,
        weights_sha256="",
        program_sha256=spec.student.sha256,
        frames=spec.frames.fingerprint(),
        targets=spec.targets,
        classes=spec.classes,
        policy=spec.policy,
        aggregation=spec.aggregation,
        student_temperature=1,
        teacher_temperature=1,
        wish=Wish(budget=0.5),
        costs=CostSpec(teacher=0.5, decode_price=1.0, teacher_price=36.0),
        expected=EXPECTED,
        made_at="now",
        versions={},
    )
    store.files.put_over("policy.json", document.model_dump_json().encode())
    return store


def test_as_a_command(labelled: LabelReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "p.html", tmp_path / "figures"
    argv = ["report", labelled.store.url, "-o", str(page), "--figures", str(figures), "--videos", "5"]
    assert locum([*argv, "--json", "--prices.teacher", "3.5"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["page"] == str(page) and body["cost"]["money"] > 0
    html = page.read_text()
    assert [s for s in SECTIONS if f'<section id="{s}">' in html] == list(SECTIONS)
    strips = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert len(strips) == 5 + 4 and len(set(strips)) >= 4  # the sheet, and its first ones again on top
    names = {"frontier", "spending", "by-class", "deferred", "risk-coverage", "reliability"}
    assert {p.name for p in figures.iterdir()} == {f"{n}.{k}" for n in names for k in ("svg", "png")}
    assert html.count("<svg role=") == len(names)
    assert locum(argv) == EXIT_SETTINGS and "is there already" in capsys.readouterr().err
    assert locum([*argv, "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("cost ") and said.rstrip().endswith("p.html")

    def without_time(text: str) -> str:
        text = re.sub(r"<dt>made</dt><dd>[^<]*</dd>", "", text)
        return re.sub(r"An hour of.*?</p>|Prices were not.*?</p>", "", text)

    again = without_time(page.read_text())
    assert locum([*argv, "--overwrite"]) == 0
    assert without_time(page.read_text()) == again


def test_its_numbers_are_those_of_the_stores(trained: Path, labelled: LabelReport, tmp_path: Path) -> None:
    options = ReportOptions(videos=0, prices=PriceFlags(teacher=3600.0))
    found = report(labelled.store.url, str(tmp_path / "p.html"), options).numbers
    rows, videos = read(labelled.store), labelled.labels.table
    cost = found["cost"]
    assert (cost["videos"], cost["clips"]) == (18, rows.num_rows)
    assert cost["deferred"] == pc.sum(rows["deferred"]).as_py() == 18
    deferred = rows.filter(rows["deferred"])
    assert cost["seconds"]["teacher"] == pytest.approx(pc.sum(deferred["teacher_ms"]).as_py() / 1e3, abs=2e-3)
    assert cost["seconds"]["audit"] == pytest.approx(pc.sum(videos["audit_s"]).as_py(), abs=2e-3)
    each = pc.mean(rows["teacher_ms"]).as_py() / 1e3
    assert cost["dense_seconds"]["teacher"] == pytest.approx(each * rows.num_rows, abs=2e-3)
    decode, student, teacher = (
        pc.sum(t[n]).as_py() / 1e3
        for t, n in ((rows, "decode_ms"), (rows, "student_ms"), (deferred, "teacher_ms"))
    )
    ratio = (decode + student + teacher) / (decode + each * rows.num_rows)
    assert cost["ratio"] == pytest.approx(ratio, rel=1e-3)
    assert cost["money"] == pytest.approx(cost["seconds"]["teacher"], abs=1e-3)
    student = open_student(student_in(trained))
    store = targets_of(student)
    learnt = set(learnt_from(student, store).to_pylist())
    fair = [r for r in videos.to_pylist() if r["video_id"] not in learnt]
    assert 0 < len(fair) < 18 and found["lost"]["labelled"] == len(fair)
    right = np.mean([r["top1_name"] == r["label"] for r in fair])
    assert found["lost"]["right"]["value"] == pytest.approx(right, abs=1e-6)
    held = applied(student, labelled.policy, store, num_draws=2)
    assert found["held_out"]["ratio"] == held.outcome.ratio
    assert found["held_out"]["accuracy"]["value"] == pytest.approx(held.outcome.accuracy.value, abs=1e-6)
    assert sum(q["clips"] for q in found["held_out"]["quadrants"]) == len(held.judged)
    assert sum(found["review"].values()) == 18 and not found["missing"]


def test_the_dense_teachers_word_is_that_of_the_targets(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the teacher is asked about everything, all labels are the dense teacher's."""
    name = add_policy(trained, PolicySpec(kind="dense"), name="reported-dense")
    dense = run(trained, tmp_path, name)
    found = report(dense.store.url, str(tmp_path / "p.html"), QUICK).numbers["lost"]
    assert found["beside"] == found["labelled"] > 0 and found["agreement"]["value"] == 1.0
    assert found["difference"]["value"] == 0.0 and found["right_beside"] == found["dense"]


def test_without_student_and_targets_the_rest_is_shown(tmp_path: Path) -> None:
    store = made_up(tmp_path / "store", list(EVERY_KIND.values()))
    made = report(store.url, str(tmp_path / "p.html"))
    found, html = made.numbers, (tmp_path / "p.html").read_text()
    missing, unknown = found["missing"]
    assert "is not known: the accuracy may be of such videos" in unknown
    assert "The student is not where it was" in missing and "--student says where it is now" in missing
    assert found["held_out"] is None and '<section id="trust">' not in html
    assert found["review"] == dict.fromkeys(EVERY_KIND, 1)
    assert found["quarantined_videos"] == 2 and "<h3>Quarantine</h3>" in html
    assert html.count('<div class="missing">') == 8 + 4  # these videos are nowhere
    assert "Guaranteed" not in html
    # Asked about one clip, in no time: so it is not known what the dense teacher would have taken.
    assert found["cost"]["deferred"] == 1


def test_a_teacher_that_was_never_asked_costs_what_the_policy_was_calibrated_with(tmp_path: Path) -> None:
    store = made_up(tmp_path / "store", [Made([Clip(0), Clip(1)])], policy=PolicySpec(kind="student-alone"))
    cost = report(store.url, str(tmp_path / "p.html"), QUICK).numbers["cost"]
    assert cost["dense_seconds"]["teacher"] == pytest.approx(2 * 0.5)
    assert "as the policy was calibrated with" in cost["teacher_clip_from"]
    assert cost["dense_money"] == pytest.approx((0.002 * 1.0 + 1.0 * 36.0) / 3600)


def test_videos_that_models_were_made_from_do_not_count_though_the_models_are_gone(tmp_path: Path) -> None:
    store = made_up(tmp_path / "store", [Made([Clip(0)])] * 4)
    write_video_labels(store, video_labels(store, None, pa.array([video_id(0), video_id(2)])))
    found = report(store.url, str(tmp_path / "p.html"), QUICK).numbers
    assert found["lost"]["labelled"] == 2 and len(found["missing"]) == 1


def test_prices_that_are_not_given_are_the_policys(tmp_path: Path) -> None:
    store = made_up(tmp_path / "store", [Made([Clip(0), Clip(1)])], policy=PolicySpec(kind="student-alone"))
    options = ReportOptions(pictures=False, prices=PriceFlags(teacher=72.0))
    cost = report(store.url, str(tmp_path / "p.html"), options).numbers["cost"]
    assert cost["dense_money"] == pytest.approx((0.002 * 1.0 + 1.0 * 72.0) / 3600)
    free = ReportOptions(pictures=False, prices=PriceFlags(decode=0.0, teacher=0.0), overwrite=True)
    assert report(store.url, str(tmp_path / "p.html"), free).numbers["cost"]["money"] is None


@pytest.mark.parametrize("name", ["$\\frac{$", "win $x_$ now", "<b>\n&", "\u4e2d\u6587", "x" * 300])
def test_classes_may_be_called_anything(tmp_path: Path, name: str) -> None:
    classes = (name, "b", "c")
    store = made_up(tmp_path / "s", [Made([Clip(0, teacher=1), Clip(1)])] * 2, classes=classes, label_map={})
    figures = tmp_path / "f"
    report(store.url, str(tmp_path / "p.html"), ReportOptions(pictures=False, figures=str(figures)))
    assert "<b>" not in (tmp_path / "p.html").read_text() and (figures / "by-class.png").exists()


def test_the_frames_shown_are_of_a_clip_that_was_asked_about(tmp_path: Path) -> None:
    """Of a film most clips are idle."""
    store = made_up(tmp_path / "s", [Made([Clip(None), Clip(0, sure=0.05), Clip(0), Clip(None)])])
    report(store.url, str(tmp_path / "p.html"), ReportOptions(videos=1))
    assert "least sure at 1.0 s" in (tmp_path / "p.html").read_text()


def test_a_page_is_not_written_where_its_figures_may_not_be(tmp_path: Path) -> None:
    store = made_up(tmp_path / "s", [Made([Clip(0)])])
    (tmp_path / "f").write_text("a file")
    with pytest.raises(SettingsError, match="is a file, and a folder is wanted"):
        report(
            store.url, str(tmp_path / "p.html"), ReportOptions(pictures=False, figures=str(tmp_path / "f"))
        )
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "deferred.svg").write_text("there")
    with pytest.raises(SettingsError, match="is there already"):
        report(
            store.url, str(tmp_path / "p.html"), ReportOptions(pictures=False, figures=str(tmp_path / "g"))
        )
    assert not (tmp_path / "p.html").exists() and (tmp_path / "g" / "deferred.svg").read_text() == "there"


def test_another_policy_beside_the_labels_is_refused(tmp_path: Path) -> None:
    store = made_up(tmp_path / "s", [Made([Clip(0)])])
    document = json.loads(store.files.read("policy.json"))
    other = {"student": "f" * 32}, {"policy": {"kind": "dense"}}
    for change, message in (
        *((o, "is not the policy that these labels") for o in other),
        ({"wish": {}}, "is no policy"),
    ):
        store.files.put_over("policy.json", json.dumps({**document, **change}).encode())
        with pytest.raises(SettingsError, match=message):
            report(store.url, str(tmp_path / "p.html"), QUICK)


def test_films_by_passages_are_not_compared_by_one_word(tmp_path: Path) -> None:
    policy = PolicySpec(kind="video-threshold", score="msp", threshold=0.5, passage=60.0, stride=1.0)
    store = made_up(tmp_path / "store", [Made([Clip(0), Clip(1)])], policy=policy)
    made = report(store.url, str(tmp_path / "p.html"), QUICK)
    assert made.numbers["lost"]["right"] is None
    assert "This policy decides by passages" in (tmp_path / "p.html").read_text()


def test_no_secret_of_the_students_place_is_shown(tmp_path: Path) -> None:
    gone = StudentRef(
        program="http://u:secretpw@127.0.0.1:9/s/student.pt2", sha256="1" * 64, fingerprint="a" * 32
    )
    store = made_up(tmp_path / "s", [Made([Clip(0)])], student=gone)
    made = report(store.url, str(tmp_path / "p.html"), QUICK)
    assert made.numbers["missing"] and "secretpw" not in (tmp_path / "p.html").read_text()
    assert "secretpw" not in json.dumps(made.to_json())


@pytest.mark.parametrize(("status", "why"), [(403, "access is denied"), (404, "it has no student.json")])
def test_a_students_place_that_answers_no_is_named_as_missing(tmp_path: Path, status: int, why: str) -> None:
    with answering(status) as (url, _):
        away = StudentRef(program=f"{url}/s/student.pt2?sig=secretpw", sha256="1" * 64, fingerprint="a" * 32)
        store = made_up(tmp_path / "s", [Made([Clip(0)])], student=away)
        made = report(store.url, str(tmp_path / "p.html"), QUICK)
        with pytest.raises(SettingsError, match=why):
            report(store.url, str(tmp_path / "q.html"), ReportOptions(student=f"{url}/s", pictures=False))
    (said,) = (text for text in made.numbers["missing"] if "The student is not where it was" in text)
    assert why in said and "secretpw" not in said


def test_no_secret_of_a_url_is_shown(tmp_path: Path) -> None:
    uri = "https://user:pass@host.example/v.mp4?X-Amz-Signature=abc"
    store = made_up(tmp_path / "store", [Made([Clip(0, teacher=1)], plan={"uris": [uri]})])
    options = ReportOptions(videos=2, pictures=False, uri_prefixes=("https://host.example/=s3://b/",))
    report(store.url, str(tmp_path / "p.html"), options)
    html = (tmp_path / "p.html").read_text()
    assert "s3://b/v.mp4" in html and "Signature" not in html and "pass@" not in html


def test_what_is_wrong_is_refused_and_nothing_is_written(
    trained: Path, labelled: LabelReport, tmp_path: Path
) -> None:
    out = str(tmp_path / "p.html")
    unfinished = make_labels(tmp_path / "u", [*EVERY_KIND.values()], finished=False)
    other = made_up(tmp_path / "o", [Made([Clip(0)])])
    no_policy = make_labels(tmp_path / "n", [Made([Clip(0)])])
    for store, options, message in (
        (targets_of(open_student(student_in(trained))).url, ReportOptions(), "is a store of targets"),
        (unfinished.url, ReportOptions(), "is not finished: .* report what is there with --unfinished"),
        (no_policy.url, ReportOptions(), "has no policy.json"),
        (other.url, ReportOptions(student=student_in(trained)), "is not the student of these labels"),
        (labelled.store.url, ReportOptions(student=str(tmp_path)), "is no student"),
        (labelled.store.url, ReportOptions(targets=labelled.store.url), "targets"),
        (other.url, ReportOptions(targets=labelled.store.url), "targets"),
        (
            other.url,
            ReportOptions(targets=targets_of(open_student(student_in(trained))).url),
            "not the targets of",
        ),
        (labelled.store.url, ReportOptions(split="train"), "there is no split 'train' to judge on"),
        (labelled.store.url, ReportOptions(uri_prefixes=("x",)), "OLD=NEW"),
    ):
        with pytest.raises(SettingsError, match=message):
            report(store, out, options)
        assert not Path(out).exists()
    with pytest.raises(SettingsError, match=r"its name ends in \.html"):
        report(labelled.store.url, str(tmp_path / "folder"))


def test_a_page_that_is_there_is_seen_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.html").write_text("there")
    with pytest.raises(SettingsError, match="is there already"):
        report(str(tmp_path / "no such store"), str(tmp_path / "p.html"))


def test_of_an_unfinished_store_what_is_there(tmp_path: Path) -> None:
    whole = made_up(tmp_path / "s", [Made([Clip(0)] * 4)] * 4)
    half = make_labels(tmp_path / "h", [Made([Clip(0)] * 4)] * 4, finished=False)
    half.files.put_over("policy.json", whole.files.read("policy.json"))
    found = report(half.url, str(tmp_path / "p.html"), ReportOptions(unfinished=True, pictures=False)).numbers
    assert found["pending_clips"] == 16 - found["cost"]["clips"] > 0
    assert "clips are pending" in (tmp_path / "p.html").read_text()


def test_removed_videos_are_not_shown(tmp_path: Path) -> None:
    store = made_up(tmp_path / "s", [Made([Clip(0, teacher=1)]), Made([Clip(1)])])
    gone = read(store, ["video_id", "uri"]).to_pylist()[0]
    remove(store, {gone["video_id"]}, "asked to")
    found = report(store.url, str(tmp_path / "p.html"), QUICK).numbers
    assert found["cost"]["videos"] == 1 and gone["uri"] not in (tmp_path / "p.html").read_text()
