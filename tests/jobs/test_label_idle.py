"""Films in which little happens: idle clips are not looked at, what is left is decided on by passages."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import run as locum
from jobs.label import LabelOptions, LabelReport, label
from jobs.labelling.labelled import labelled_videos, with_segments
from pipeline.store.read import read
from pipeline.store.verify import verify
from schemas.errors import EXIT_SETTINGS, SettingsError
from schemas.policy import PolicySpec
from tests.films import BUSY, CLIP, PLANNED, SHARE, film
from tests.jobs.labelled_archive import CERTIFICATE, add_policy, student_in

pytestmark = pytest.mark.slow
US = 1_000_000
BLOCK = 4
"""Clips here in what is one clip there: they are half a second long."""
ALL, LOOKED = 2 * PLANNED * BLOCK, 9 * BLOCK


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    with (folder / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["uri"], ["a.mp4"], ["b.mp4"]])
    film(folder / "a.mp4")
    film(folder / "b.mp4", busy=(0, 1, 2, 6, 7, 8))
    return folder


def run(trained: Path, films: Path, out: Path, policy: str, **options: object) -> LabelReport:
    given = LabelOptions(**{"num_threads": 1, "shard_clips": 12, "decodings": 1, "idle": SHARE, **options})  # type: ignore[arg-type]
    report = label(str(films / "m.csv"), str(out), student_in(trained), policy, given)
    assert report.complete and verify(report.store).clean
    return report


@pytest.fixture(scope="module")
def policy(trained: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A threshold that half of the busy clips pass."""
    alone = add_policy(trained, PolicySpec(kind="student-alone", score="msp"), name="alone")
    report = run(trained, films, tmp_path_factory.mktemp("alone"), alone)
    found = np.sort(read(report.store)["score"].drop_null().to_numpy())
    assert len(found) == LOOKED
    spec = PolicySpec(
        kind="clip-threshold", score="msp", threshold=float(found[LOOKED // 2 - 1 : LOOKED // 2 + 1].mean())
    )
    return add_policy(trained, spec, name="half")


@pytest.mark.parametrize("decodings", [1, 2])
def test_nobody_is_asked_about_idle_clips(
    trained: Path, films: Path, tmp_path: Path, policy: str, decodings: int
) -> None:
    report = run(trained, films, tmp_path, policy, decodings=decodings)
    rows = read(report.store).to_pylist()
    assert len(rows) == ALL == report.counts.planned
    idle = [r for r in rows if r["student_logits"] is None]
    still = {r["start_us"] // (CLIP * US) for r in idle if r["uri"].endswith("a.mp4")}
    assert still == set(range(PLANNED)) - set(BUSY)
    assert len(idle) == ALL - LOOKED
    for row in idle:
        assert row["answered_by"] == "none" and row["top1"] is None and row["teacher_logits"] is None
        assert row["score"] is None and not row["deferred"] and row["decode_ms"] == 0
    assert sum(r["deferred"] for r in rows) == LOOKED // 2 == sum(r["answered_by"] == "teacher" for r in rows)
    found = report.labels.to_json()
    assert (found["clips"], found["looked"], found["deferred"]) == (ALL, LOOKED, LOOKED // 2)
    assert found["asked"] == LOOKED
    # What is looked at is as it is where everything is.
    everything = run(trained, films, tmp_path / "all", policy, decodings=decodings, idle=0.0)
    assert everything.store.document.fingerprint != report.store.document.fingerprint
    every = {(r["video_id"], r["start_us"]): r for r in read(everything.store).to_pylist()}
    for row in (r for r in rows if r["student_logits"] is not None):
        other = every[row["video_id"], row["start_us"]]
        assert row["student_logits"] == pytest.approx(other["student_logits"], abs=1e-5)
        assert row["deferred"] == other["deferred"] and row["top1"] == other["top1"]


@pytest.mark.parametrize("decodings", [1, 2])
def test_an_audit_sees_idle_clips_and_changes_no_label(
    trained: Path, films: Path, tmp_path: Path, policy: str, decodings: int
) -> None:
    plain = run(trained, films, tmp_path / "plain", policy)
    report = run(trained, films, tmp_path, policy, audit_share=1.0, decodings=decodings)
    rows, other = (
        read(r.store).sort_by([("video_id", "ascending"), ("start_us", "ascending")]) for r in (report, plain)
    )
    assert rows["teacher_logits"].null_count == 0 and all(rows["audited"].to_pylist())
    for name in ("answered_by", "top1", "deferred"):
        assert rows[name].equals(other[name])
    assert rows["student_logits"].null_count == ALL - LOOKED
    videos, those = (r.labels.table.sort_by("video_id") for r in (report, plain))
    assert videos["top1"].equals(those["top1"]) and videos["audit_top1"].null_count == 0
    dense = run(
        trained, films, tmp_path / "dense", add_policy(trained, PolicySpec(kind="dense"), name="d"), idle=0.0
    )
    assert videos["audit_top1"].equals(dense.labels.table.sort_by("video_id")["top1"])


def test_the_dense_teacher_leaves_idle_clips_out_too(trained: Path, films: Path, tmp_path: Path) -> None:
    report = run(trained, films, tmp_path, add_policy(trained, PolicySpec(kind="dense"), name="dense-idle"))
    rows = read(report.store)
    assert rows["deferred"].to_numpy().sum() == LOOKED and rows["teacher_logits"].null_count == ALL - LOOKED


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_budget_is_a_share_of_what_was_looked_at(
    trained: Path, films: Path, tmp_path: Path, share: float
) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=share, score="msp"), name=f"idle-{share}")
    report = run(trained, films, tmp_path, name)
    rows = read(report.store)
    assert rows["deferred"].to_numpy().sum() == math.floor(share * LOOKED)
    assert rows["student_logits"].null_count == ALL - LOOKED
    again = run(trained, films, tmp_path, name)
    assert again.added.new_videos == 0 and read(again.store).equals(rows)


def test_a_passage_has_one_word(trained: Path, films: Path, tmp_path: Path) -> None:
    spec = PolicySpec(kind="video-part", score="margin", threshold=-1.0, part=0.34, passage=60.0, stride=0.5)
    report = run(trained, films, tmp_path, add_policy(trained, spec, "teacher-only", name="passages"))
    rows = read(report.store).to_pylist()
    busy = {"a.mp4": [(3, 5), (9, 10)], "b.mp4": [(0, 3), (6, 9)]}
    videos = with_segments(report.store, labelled_videos(report.store))
    assert len(videos) == 2
    for video in videos:
        mine = {r["start_us"]: r for r in rows if r["uri"] == video.uri}
        passages = [(first * CLIP * US, end * CLIP * US) for first, end in busy[Path(video.uri).name]]
        assert [(s.start_us, s.end_us) for s in video.segments] == passages
        for segment, (first, end) in zip(video.segments, passages, strict=True):
            clips = [r for start, r in mine.items() if first <= start < end]
            asked = np.array([r["teacher_logits"] for r in clips if r["deferred"]], np.float64)
            assert len(asked) == math.ceil(0.34 * len(clips)) < len(clips)
            probs = np.exp(asked - asked.max(axis=1, keepdims=True))
            word = (probs / probs.sum(axis=1, keepdims=True)).mean(axis=0)
            assert segment.top1 == word.argmax() and segment.confidence == pytest.approx(word.max(), abs=1e-4)
            assert segment.teacher_clips == len(asked) and segment.clips == len(clips)


def test_refused(
    trained: Path, films: Path, tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    certified = add_policy(
        trained,
        PolicySpec(kind="clip-threshold", score="msp", threshold=0.0),
        name="certified",
        certificate=CERTIFICATE,
    )
    with pytest.raises(SettingsError, match="says nothing where some are left out as idle"):
        run(trained, films, tmp_path, certified)
    drawn = PolicySpec(kind="random-k", k=1, with_student=True)
    with pytest.raises(SettingsError, match="wants the student's word on all clips"):
        run(trained, films, tmp_path, add_policy(trained, drawn, "control-variate", name="drawn"))
    given = ["--student", student_in(trained), "--policy", policy, "--idle", "1.5"]
    code = locum(["label", str(films / "m.csv"), "-o", str(tmp_path), *given])
    assert code == EXIT_SETTINGS and "--idle is a share" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
