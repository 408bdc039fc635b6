"""Everything on an object store that fails now and then, and one that stays away: nothing is lost, nothing doubled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from safetensors.torch import save_file

from cluster.runner import RayRunner
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.cli import run
from jobs.distill import distil
from jobs.label import LabelOptions, label
from jobs.teach import TeachOptions, teach
from pipeline.runner import Progress, Runner
from pipeline.store.files import StoreFiles
from pipeline.store.read import failures, read
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import verify
from schemas.cluster import RayOptions
from schemas.model import ModelRef
from schemas.policy import CostFlags, Wish
from tests.failing_proxy import FAULTS, FailingProxy, failing
from tests.jobs.distilling import CLASSES, KEEP, OPTIONS, TRAIN, make_manifest
from tests.s3_server import forget_clients
from tests.tiny import FACTORY, TINY_FLAGS, build, tiny_spec

pytestmark = pytest.mark.s3
TEACH = TeachOptions(batch_size=4, shard_clips=12, num_threads=1, keep=KEEP)
QUIET = ["--quiet"]


@pytest.fixture
def through(s3_server: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingProxy]:
    """Clients speak to the server through a proxy, in which nothing fails yet."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # of botocore, within those of s3fs and ours
    with failing(s3_server, 0.0) as (url, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget_clients()
        yield proxy


@pytest.fixture
def remote(through: FailingProxy, s3_bucket: str, tmp_path: Path) -> str:
    """An archive and a teacher's weights in the bucket; the URL of their folder."""
    make_manifest(_folder(tmp_path))
    save_file(build().state_dict(), tmp_path / "archive" / "teacher.safetensors")
    fs, root = fsspec.core.url_to_fs(f"{s3_bucket}/archive")
    fs.put(str(tmp_path / "archive"), root, recursive=True)
    return f"{s3_bucket}/archive"


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


def everything(
    source: str, out: str, weights: str, runner: Runner | None = None
) -> tuple[pa.Table, pa.Table]:
    """The whole way, from videos to labels; what the rows of targets and of labels say, by the names of files."""
    spec = tiny_spec(teacher=ModelRef(factory=FACTORY, weights=weights, classes=CLASSES))
    taught = teach(source, out, spec, TEACH, runner=runner)
    assert taught.complete and not failures(taught.store)
    train = TRAIN.model_copy(update={"classes": (), "epochs": 1, "shift": False})
    student = distil([taught.store.url], out, train, OPTIONS)
    costs = CostFlags(open=0.0, decode=0.01, student=0.01, teacher=0.5)
    calibrate(student.url, Wish(max_cost=0.9), CalibrateOptions(name="p", costs=costs))
    options = LabelOptions(num_threads=1, shard_clips=12, decodings=1, audit_share=0.2)
    labelled = label(source, out, student.url, "p", options, runner=runner)
    assert labelled.complete and not failures(labelled.store)
    for store in (taught.store, labelled.store):
        proof = verify(store)
        assert proof.clean, proof.problems
    return by_name(taught.store, ["end_us", "label", "logits"]), by_name(labelled.store, ["end_us", "label"])


def by_name(store: ShardStore, columns: list[str]) -> pa.Table:
    rows = read(store, ["uri", "start_us", *columns])
    names = pa.array([uri.rpartition("/")[2] for uri in rows["uri"].to_pylist()])
    rows = rows.set_column(0, "name", names)
    return rows.sort_by([("name", "ascending"), ("start_us", "ascending")])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "on Ray"])
def test_the_whole_way_through_a_server_that_fails(
    remote: str,
    s3_bucket: str,
    through: FailingProxy,
    tmp_path: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No local path, and one request of twenty fails: the same rows as on a disk, each once."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    runner = RayRunner(RayOptions(ray="local", workers="1")) if where == "on Ray" else None
    through.rate = 0.05
    with runner or nullcontext():
        there = everything(f"{remote}/m.csv", f"{s3_bucket}/out", f"{remote}/teacher.safetensors", runner)
    through.rate = 0.0
    assert set(through.struck) == set(FAULTS) and sum(through.struck.values()) > 20
    folder = tmp_path / "archive"
    here = everything(str(folder / "m.csv"), str(tmp_path / "out"), str(folder / "teacher.safetensors"))
    for a, b in zip(there, here, strict=True):
        assert a.num_rows > 0 and a.equals(b)


@pytest.mark.parametrize("code", [("SlowDown", 503), ("InternalError", 500)])
def test_a_server_that_stays_away_ends_a_run_and_nothing_is_lost(
    remote: str,
    s3_bucket: str,
    through: FailingProxy,
    code: tuple[str, int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    argv = ["teach", f"{remote}/m.csv", "-o", f"{s3_bucket}/out", *TINY_FLAGS, "--shard-clips", "12", *QUIET]
    through.refuses = code
    assert run(argv) == 75
    said = capfd.readouterr().err
    assert "run again" in said and "Traceback" not in said
    through.refuses = None
    assert run(argv) == 0


def test_credentials_that_expired_are_said_at_once(
    remote: str, s3_bucket: str, through: FailingProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    through.refuses = ("ExpiredToken", 400)
    argv = ["teach", f"{remote}/m.csv", "-o", f"{s3_bucket}/out", *TINY_FLAGS, *QUIET]
    before = through.asked
    assert run(argv) == 2
    said = capfd.readouterr().err
    assert "credentials" in said and "Traceback" not in said
    assert through.asked - before < 10


@pytest.mark.slow
def test_a_store_that_is_away_for_some_seconds_ends_no_run(
    s3_bucket: str, through: FailingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits wait with their workers; what was stored, and the answer lost, is known for ours."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("TINY_TEACHER_SLEEP", "0.3")
    source = make_manifest(_folder(tmp_path))
    away: list[threading.Timer] = []

    def go_away(p: Progress) -> None:
        if p.shards_done and not away:
            through.refuses = ("SlowDown", 503)
            away.append(threading.Timer(15, lambda: setattr(through, "refuses", None)))
            away[0].start()

    with RayRunner(RayOptions(ray="local", workers="2")) as runner:
        spec = tiny_spec()
        options = TeachOptions(batch_size=4, shard_clips=6, num_threads=1)
        report = teach(str(source), f"{s3_bucket}/out", spec, options, runner=runner, on_progress=go_away)
    assert away and report.complete and not report.summary.lost_races and not report.summary.failed_shards
    assert report.summary.rows == report.counts.rows == report.counts.planned
    assert verify(report.store).clean


def test_a_server_that_does_not_answer_is_asked_again(
    s3_bucket: str, through: FailingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As patient as the client's options say, which come from fsspec's own configuration."""
    options = {"config_kwargs": {"read_timeout": 1, "connect_timeout": 1, "retries": {"max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    forget_clients()
    files = StoreFiles(f"{s3_bucket}/some")
    through.kinds, through.rate = ("no answer",), 0.35
    bodies = {f"f{n}": f"{n} of them".encode() * 100 for n in range(12)}
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda name: files.put_new(name, bodies[name]), bodies))
        read = dict(zip(bodies, pool.map(files.read, bodies), strict=True))
    assert read == bodies and through.struck["no answer"] > 2
    through.rate = 0.0
    assert files.list("") == sorted(bodies)
