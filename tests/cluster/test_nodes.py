"""RayRunner over several nodes: who runs where, and nodes that come, go, and say that they will."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from cluster.runner import RayRunner
from jobs.teach import TeachReport, teach
from pipeline.runner import Progress
from pipeline.store.verify import verify
from schemas.cluster import RayOptions
from schemas.model import ModelRef
from tests.cluster.conftest import ROOT
from tests.cluster.taught import FAULTY, OPTIONS, taught, values
from tests.tiny import tiny_spec

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs, as it should be; tests add the others."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def add(cluster: Cluster, cpus: int, gpus: int = 0) -> Any:
    return cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=300 << 20)


def lie_where(kind: str) -> set[str]:
    """Ids of the nodes that actors of a class run on or ran on."""
    found = [a for a in state.actor_table(None).values() if a["ActorClassName"] == kind]
    return {a["Address"]["NodeID"] for a in found} - {""}


@contextmanager
def after_the_first_shard(out: Path, then: Callable[[], None]) -> Iterator[None]:
    """Do something once a shard is committed under ``out``."""
    stop = threading.Event()

    def wait() -> None:
        while not stop.wait(0.1):
            if list(out.glob("targets-*/data/*.parquet")):
                then()
                return

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        try:
            yield
        finally:
            stop.set()
        waiting.result()


def slow(archive: Path, out: Path, runner: RayRunner, seconds: float = 0.7) -> TeachReport:
    return taught(archive, out, runner, teacher=ModelRef(factory=FAULTY, kwargs={"seconds": seconds}))


def whole(report: TeachReport) -> bool:
    done = report.complete and report.counts.rows == report.counts.planned
    return done and not report.summary.failed_shards and verify(report.store).clean


def test_decoding_on_nodes_without_gpus_feeds_those_with_them(
    nodes: Cluster, archive: Path, tmp_path: Path
) -> None:
    """A head that has none of either; a node of few cores with a GPU; one of many without."""
    with_gpu, without = add(nodes, 1, gpus=1), add(nodes, 4)
    here = taught(archive, tmp_path / "here", None)
    options = RayOptions(ray=nodes.address, decoders=3, cpus_per_decoder=1)
    with RayRunner(options) as runner:
        report = taught(archive, tmp_path / "ray", runner)
        assert lie_where("Worker") - {without.node_id} == {with_gpu.node_id}  # the index is probed anywhere
        assert without.node_id in lie_where("DecodeActor")
    assert whole(report) and values(report).equals(values(here))


def test_a_node_that_goes_takes_no_row_with_it(nodes: Cluster, archive: Path, tmp_path: Path) -> None:
    add(nodes, 1)
    second = add(nodes, 1)
    here = taught(archive, tmp_path / "here", None)
    gone = lambda: nodes.remove_node(second, allow_graceful=False)  # noqa: E731
    with RayRunner(RayOptions(ray=nodes.address)) as runner, after_the_first_shard(tmp_path / "ray", gone):
        report = slow(archive, tmp_path / "ray", runner)
        assert len(lie_where("Worker")) == 2
    assert whole(report) and values(report).equals(values(here))


def test_a_node_that_comes_gets_work(nodes: Cluster, archive: Path, tmp_path: Path) -> None:
    first = add(nodes, 1)
    came: list[Any] = []

    def come(p: Progress) -> None:
        """In this thread: a node that starts takes signals."""
        if p.shards_done and not came:
            came.append(add(nodes, 1))

    spec = tiny_spec(teacher=ModelRef(factory=FAULTY, kwargs={"seconds": 2.0}))
    with RayRunner(RayOptions(ray=nodes.address)) as runner:
        report = teach(str(archive), str(tmp_path / "ray"), spec, OPTIONS, runner=runner, on_progress=come)
        assert lie_where("Worker") == {first.node_id, came[0].node_id}
    assert whole(report)


def test_notice_is_taken_of_a_node_that_is_about_to_go(
    nodes: Cluster, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is begun there is finished, nothing new is, and nobody dies."""
    add(nodes, 1)
    second = add(nodes, 1)

    def notice() -> None:
        client = GcsClient(address=nodes.address)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = (int(time.time()) + 120) * 1000
        accepted, why = client.drain_node(second.node_id, reason, "spot", deadline)
        assert accepted, why

    caplog.set_level(logging.INFO, "locum.ray")
    with RayRunner(RayOptions(ray=nodes.address)) as runner, after_the_first_shard(tmp_path / "ray", notice):
        report = slow(archive, tmp_path / "ray", runner, seconds=1.5)
    assert whole(report)
    said = caplog.text
    assert f"node {second.node_id} is about to go" in said
    assert "left holding nothing" in said and "died" not in said


def test_a_cluster_without_anything_is_refused_with_the_numbers(
    nodes: Cluster, archive: Path, tmp_path: Path
) -> None:
    from schemas.errors import SettingsError

    started = time.monotonic()
    with (
        RayRunner(RayOptions(ray=nodes.address)) as runner,
        pytest.raises(SettingsError, match="where the cluster has 0"),
    ):
        taught(archive, tmp_path / "ray", runner)
    assert time.monotonic() - started < 20
