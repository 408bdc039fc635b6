"""One decoding and two: the same rows and failures, also of damaged files and on Ray; and what a probe finds."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.cli import run as locum
from jobs.label import LabelOptions, LabelReport, label
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from pipeline.tasks.decoding_probe import Decodings, probe_decodings
from pipeline.tasks.label import LabelTask
from schemas.labels import LabelSpec
from schemas.policy import PolicySpec
from schemas.targets import DecodeSpec
from tests.jobs.labelled_archive import add_policy, run, student_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("learnt_elsewhere")]
KEY = [("video_id", "ascending"), ("start_us", "ascending")]


def rows(store: ShardStore) -> pa.Table:
    """All that was said, less what it took."""
    table = read(store)
    return table.select([c for c in table.column_names if not c.endswith("_ms")]).sort_by(KEY)


def torn_archive(trained: Path, folder: Path) -> Path:
    """The archive with some bytes of every file turned, other ones in each."""
    shutil.copytree(trained / "archive", folder)
    rng = random.Random(3)
    for path in sorted((folder / "videos").glob("*.mp4")):
        data = bytearray(path.read_bytes())
        at = rng.randrange(len(data) // 3, len(data) - 10)
        for i in range(at, at + rng.choice([1, 2, 4])):
            data[i] ^= rng.randrange(1, 256)
        path.write_bytes(data)
    return folder / "m.csv"


def test_damaged_files_have_the_same_rows_and_failures(trained: Path, tmp_path: Path) -> None:
    manifest = torn_archive(trained, tmp_path / "archive")
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="torn")
    found: list[LabelReport] = []
    for decodings in (1, 2):
        options = LabelOptions(num_threads=1, shard_clips=12, decodings=decodings)  # type: ignore[arg-type]
        out = str(tmp_path / f"out-{decodings}")
        found.append(label(str(manifest), out, student_in(trained), name, options))
        assert found[-1].complete and verify(found[-1].store).clean
    # Torn frames look otherwise where decoding begins later: what is in them may differ, that they are torn may not.
    both = [rows(r.store) for r in found]
    words = ["confidence", "teacher_logits", "top1"]
    assert both[0].drop_columns(words).equals(both[1].drop_columns(words))
    whole = [t.filter(pc.invert(t["damaged"])) for t in both]
    assert whole[0].num_rows > 20 and whole[0].equals(whole[1])
    assert sum(both[0]["damaged"].to_pylist()) > 0
    said = [
        {f.video_id: (f.missing_rows, f.damaged_rows, f.permanent) for _, f in failures(r.store)}
        for r in found
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_decodings_on_ray(trained: Path, tmp_path: Path, workers: str) -> None:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="gain"), name="twice-on-ray")
    argv = ["label", str(trained / "archive" / "m.csv"), "-o", str(tmp_path), "--policy", name, "-q"]
    argv += ["--student", student_in(trained), "--workers", workers, "--decodings", "2", "--shard-clips", "6"]
    assert locum(argv) == 0
    here = run(trained, tmp_path / "here", name, audit_share=0.0)
    (store,) = tmp_path.glob("labels-*")
    assert rows(ShardStore.open(str(store))).equals(rows(here.store))


def test_audits_are_the_same_from_two_decodings(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="audited-twice")
    once, twice = (
        run(trained, tmp_path / str(n), name, decodings=n, audit_share=0.5, max_disagreement=0.2)
        for n in (1, 2)
    )
    assert once.audit == twice.audit and once.audit.videos > 3
    assert rows(once.store).equals(rows(twice.store))


def test_a_probe_finds_what_is_cheaper(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="probed")
    store = run(trained, tmp_path, name).store
    task = LabelTask(LabelSpec(**store.document.spec))
    videos = [v for key in store.plans()[0].shard_keys() for v in store.shard(key).videos]
    found = probe_decodings(task, videos, 1.0)
    assert found.videos == 8 and found.number == 1  # everything twice is never cheaper
    assert found.twice_seconds > found.once_seconds > 0 and "would take" in str(found)
    keyframes = task.spec.frames.model_copy(update={"decode": DecodeSpec(key_frames=True)})
    alone = replace(task, spec=task.spec.model_copy(update={"frames": keyframes}))
    assert probe_decodings(alone, videos, 0.1).number == 2
    nobody = replace(task, spec=task.spec.model_copy(update={"policy": PolicySpec(kind="dense")}))
    assert probe_decodings(nobody, videos, 0.1).number == 1 == probe_decodings(task, [], 0.1).number
    assert probe_decodings(task, videos, 0.1, budget_seconds=0.0).videos == 0


def test_nothing_is_tried_where_there_is_no_choice(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    monkeypatch.setattr("jobs.label.probe_decodings", lambda *a, **k: tried.append(a) or Decodings(1))
    for kind in ("dense", "student-alone"):
        name = add_policy(trained, PolicySpec(kind=kind), name=f"no-choice-{kind}")  # type: ignore[arg-type]
        assert run(trained, tmp_path, name, decodings=None).decodings.number == 1
    assert not tried
    name = add_policy(trained, PolicySpec(kind="top-k", k=1), name="a-choice")
    run(trained, tmp_path, name, decodings=None)
    assert len(tried) == 1


def test_a_store_goes_on_as_it_was_begun(trained: Path, tmp_path: Path) -> None:
    name = add_policy(trained, PolicySpec(kind="top-k", k=1, score="msp"), name="begun")
    source, out = str(trained / "archive" / "m.csv"), str(tmp_path)
    begun = run(trained, tmp_path, name, decodings=2, limit=3)
    assert begun.decodings.number == 2
    again = label(source, out, student_in(trained), name, LabelOptions(num_threads=1))
    assert again.decodings.number == 2 and again.store.url == begun.store.url
    fresh = label(source, str(tmp_path / "b"), student_in(trained), name, LabelOptions(num_threads=1))
    assert fresh.decodings.videos == 8
