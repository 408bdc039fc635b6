"""Exact budgets: met to the clip, as the simulator says, over interruptions, growth, failures and other runs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import jobs.label
from jobs.cli import run as locum
from jobs.label import LabelOptions, LabelReport, label
from jobs.labelling.budget import choices
from pipeline.runner import RunSettings
from pipeline.scored import ScoredStore
from pipeline.select.policies import policy_of
from pipeline.store.data_files import data_name
from pipeline.store.mend import remove, retry
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from schemas.policy import PolicySpec, ScoreName
from schemas.shard import SUPERSEDED, Failure
from tests.jobs.labelled_archive import add_policy, deferred, run, simulation, student_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("learnt_elsewhere")]


@pytest.mark.parametrize(
    ("share", "score"),
    [(0.0, "entropy"), (0.1, "entropy"), (0.37, "entropy"), (0.3, "gain-in-context"), (1.0, "entropy")],
)
def test_a_budget_is_met_exactly_and_as_the_simulator_says(
    trained: Path, tmp_path: Path, share: float, score: ScoreName
) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=share, score=score), name=f"b{share}")
    report = run(trained, tmp_path, name)
    assert report.complete and verify(report.store).clean and report.scores is not None
    assert verify(report.scores.store).clean
    rows = read(report.store)
    assert rows["deferred"].to_numpy().sum() == math.floor(share * len(rows)) == len(deferred(report))
    assert rows["teacher_logits"].null_count == len(rows) - len(deferred(report))
    assert rows["student_logits"].null_count == 0
    # Rows hold what both passes took, footers what each did: nothing is counted twice.
    decode_s = sum(f.seconds["decode"] for s in (report.store, report.scores.store) for f in s.footers())
    assert rows["decode_ms"].to_numpy().sum() / 1e3 == pytest.approx(decode_s, abs=5e-3)
    # The same clips as a budget over all that the student said.
    order = np.lexsort((rows["start_us"], rows["video_id"], -rows["score"].to_numpy()))
    wanted = {
        (rows["video_id"][i].as_py(), rows["start_us"][i].as_py())
        for i in order[: len(deferred(report))].tolist()
    }
    assert deferred(report) == wanted
    if share == 1.0:
        dense = run(trained, tmp_path, add_policy(trained, PolicySpec(kind="dense"), name="all-of-them"))
        assert report.labels.table["top1"].equals(dense.labels.table["top1"])


def test_a_budget_of_a_grown_archive_leaves_what_was_chosen(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.3, score="msp"), name="grown")
    lines = (trained / "archive" / "m.csv").read_text().splitlines()
    part = trained / "archive" / "part.csv"
    part.write_text("\n".join(lines[:10]) + "\n")
    options = LabelOptions(num_threads=1, shard_clips=6)
    first = label(str(part), str(tmp_path), student_in(trained), name, options)
    before, count = deferred(first), first.counts.rows
    assert len(before) == math.floor(0.3 * count) > 0
    second = run(trained, tmp_path, name)
    assert second.store.url == first.store.url and second.counts.rows > count
    assert before < deferred(second) and verify(second.store).clean
    new = second.counts.rows - count
    assert len(deferred(second)) == math.floor(0.3 * count) + math.floor(0.3 * new)
    again = run(trained, tmp_path, name)
    assert again.complete and again.summary.shards == 0 and deferred(again) == deferred(second)


def test_a_budget_that_is_interrupted_ends_at_the_same_labels(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.4, score="margin"), name="killed")
    whole = run(trained, tmp_path / "whole", name)
    none = run(trained, tmp_path / "parts", name, settings=RunSettings(max_seconds=0.0))
    assert not none.complete and none.counts.rows == 0
    stops = 0
    for stop_after in range(1, 30):
        calls = 0

        def stop(_: object, most: int = stop_after) -> None:
            nonlocal calls
            calls += 1
            if calls == most:
                raise KeyboardInterrupt

        given = LabelOptions(num_threads=1, shard_clips=12)
        try:
            report = label(
                str(trained / "archive" / "m.csv"),
                str(tmp_path / "parts"),
                student_in(trained),
                name,
                given,
                on_progress=stop,
            )
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3 and report.complete and verify(report.store).clean
    keep = [n for n in read(whole.store).column_names if not n.endswith("_ms")]
    assert read(report.store, keep).equals(read(whole.store, keep))
    assert report.labels.table["top1"].equals(whole.labels.table["top1"])


def test_a_budget_as_a_command_on_ray(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.25, score="msp"), name="on-ray")
    argv = ["label", str(trained / "archive" / "m.csv"), "-o", str(tmp_path), "--policy", name]
    assert (
        locum([*argv, "--student", student_in(trained), "--workers", "1", "-q", "--audit-share", "0.3"]) == 0
    )
    here = run(trained, tmp_path / "here", name, audit_share=0.3)
    (store,) = tmp_path.glob("labels-*")
    keep = [n for n in read(here.store).column_names if not n.endswith("_ms")]
    key = [("video_id", "ascending"), ("start_us", "ascending")]
    there = read(ShardStore.open(str(store)), keep)
    assert there.sort_by(key).equals(read(here.store, keep).sort_by(key))
    said = capsys.readouterr().out
    assert f"asked about {len(deferred(here))} of {here.counts.rows} clips" in said
    assert here.audit.videos > 0


# ---------------------------------------------------------------- what may come between the passes


def test_the_simulator_says_the_same(trained: Path, tmp_path: Path) -> None:
    """Over the videos that it knows: as many of their clips, and the same ones."""
    held_out = simulation(trained).known.scores
    manifest = trained / "archive" / "held-out.csv"
    lines = (trained / "archive" / "m.csv").read_text().splitlines()
    manifest.write_text("\n".join(line for line in lines if ",train," not in line) + "\n")
    rule = PolicySpec(kind="budget", share=0.4, score="gain")
    name = add_policy(trained, rule, name="simulated")
    report = label(str(manifest), str(tmp_path), student_in(trained), name, LabelOptions(num_threads=1))
    decision = policy_of(rule).select(held_out)
    keys = zip(held_out.video_N.tolist(), held_out.start_us_N.tolist(), strict=True)
    wanted = {
        (held_out.ids_V[v], s) for (v, s), yes in zip(keys, decision.teacher_N.tolist(), strict=True) if yes
    }
    assert report.counts.rows == len(held_out) and deferred(report) == wanted


def test_only_what_the_source_names_is_labelled(trained: Path, tmp_path: Path) -> None:
    small = add_policy(trained, PolicySpec(kind="budget", share=0.1, score="msp"), name="small")
    large = add_policy(trained, PolicySpec(kind="budget", share=0.5, score="msp"), name="large")
    assert run(trained, tmp_path, small).counts.videos == 18
    assert run(trained, tmp_path, large, limit=3).counts.videos == 3
    gone = read(run(trained, tmp_path, small).scores.store, ["video_id"])["video_id"][0].as_py()  # type: ignore[union-attr]
    report = run(trained, tmp_path, large)
    assert report.counts.videos == 18 and remove(report.scores.store, [gone])  # type: ignore[union-attr]
    other = add_policy(trained, PolicySpec(kind="budget", share=0.2, score="msp"), name="other-share")
    again = run(trained, tmp_path, other)
    assert again.complete and gone not in read(again.store, ["video_id"])["video_id"].to_pylist()


def test_nothing_is_chosen_among_a_generation_that_is_not_whole(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.3, score="msp"), name="halves")
    lines = (trained / "archive" / "m.csv").read_text().splitlines()
    part = trained / "archive" / "halves.csv"
    part.write_text("\n".join(lines[:10]) + "\n")
    label(str(part), str(tmp_path), student_in(trained), name, LabelOptions(num_threads=1, shard_clips=6))
    whole = run(trained, tmp_path, name)
    scores, labels = whole.scores.store, tmp_path / "elsewhere"  # type: ignore[union-attr]
    labels.mkdir()
    lost = max(scores.committed())
    scores.files.delete(data_name(lost))  # as if another run were still at it
    fresh = ShardStore.create(
        str(labels), kind=scores.kind, name="x", fingerprint="0" * 32, spec=scores.document.spec
    )
    found = choices(scores, fresh, 0.3)
    assert set(found) == {1} and lost.generation == 2
    known = ScoredStore(scores, found)
    ids = [v.video_id for g in (1, 2) for k in scores.plan(g).shard_keys() for v in scores.shard(k).videos]
    assert 0 < known.knows(ids).sum() < len(ids)
    assert run(trained, tmp_path, name).complete


def with_files(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> tuple[Path, Callable[..., LabelReport]]:
    """A copy of the archive, and a run over it; ``before`` is done once the videos are indexed."""
    archive = tmp_path / "archive"
    shutil.copytree(trained / "archive", archive)
    real = jobs.label.catalog

    def go(before: Callable[[], object] = lambda: None) -> LabelReport:
        def catalog(*args: object) -> pa.Table:
            found = real(*args)  # type: ignore[arg-type]
            before()
            return found

        monkeypatch.setattr(jobs.label, "catalog", catalog)
        options = LabelOptions(num_threads=1, shard_clips=12, max_attempts=1)
        return label(str(archive / "m.csv"), str(tmp_path / "out"), student_in(trained), name, options)

    return archive, go


def test_a_video_that_was_away_is_labelled_once_its_scores_are_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.3, score="msp"), name="away")
    archive, go = with_files(trained, tmp_path, monkeypatch, name)
    video, hidden = archive / "videos" / "v05.mp4", tmp_path / "hidden"
    report = go(lambda: video.rename(hidden))
    assert report.counts.quarantined_rows > 0 and report.scores.counts.quarantined_rows > 0  # type: ignore[union-attr]
    hidden.rename(video)
    assert retry(report.scores.store).reopened == 1  # type: ignore[union-attr]
    report = go()
    assert (
        report.complete
        and report.counts.quarantined_rows == 0
        and report.counts.rows == report.counts.planned
    )
    assert verify(report.store).clean and verify(report.scores.store).clean  # type: ignore[union-attr]
    assert len(deferred(report)) <= math.floor(0.3 * report.counts.rows)


def test_a_video_that_was_away_and_is_damaged_is_labelled_once_its_scores_are_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged for good stays in the scores' quarantine: that says nothing against the rows that came."""
    name = add_policy(trained, PolicySpec(kind="budget", share=0.3, score="msp"), name="away-damaged")
    archive, go = with_files(trained, tmp_path, monkeypatch, name)
    video, hidden = archive / "videos" / "v05.mp4", tmp_path / "hidden"
    data = bytearray(video.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    video.write_bytes(data)
    go(lambda: video.rename(hidden))
    hidden.rename(video)
    report = go()
    ((_, away),) = failures(report.store)
    assert not away.permanent
    assert retry(report.scores.store).reopened == 1  # type: ignore[union-attr]
    pending = len(report.store.plans())
    report = go()
    assert report.complete and len(report.store.plans()) == pending + 1
    (left,) = failures(report.store)
    assert left[1].permanent and left[1].video_id == away.video_id
    rows = read(report.store)
    assert away.video_id in rows["video_id"].to_pylist()
    assert (
        verify(report.store).clean and len(go().store.plans()) == pending + 1
    )  # nothing more to be reopened


def test_a_video_whose_bytes_changed_is_superseded_and_not_counted_as_away(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_policy(trained, PolicySpec(kind="budget", share=0.3, score="msp"), name="changed")
    _, go = with_files(trained, tmp_path, monkeypatch, name)
    report = go()
    shard = report.store.shard(next(iter(report.store.plans()[0].shard_keys())))
    failure = Failure(shard.videos[0].video_id, "x.mp4", SUPERSEDED, "Superseded", "", False, 0, 1)
    gone = replace(shard.videos[0], unreadable=json.dumps(failure.to_json()))
    known = ScoredStore(report.scores.store, choices(report.scores.store, report.store, 0.3))  # type: ignore[union-attr]
    look = known.first_look(replace(shard, videos=(gone, *shard.videos[1:])))
    (found,) = look.failures
    assert (found.stage, found.attempts, found.missing_rows) == (SUPERSEDED, 0, gone.num_clips)
    assert {c.video_id for c in look.clips} == {v.video_id for v in shard.videos[1:]}
    assert not failures(report.store)
