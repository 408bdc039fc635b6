"""What a run shows for Prometheus, read from the endpoint of its node."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import ray

from cluster.metrics import GAUGES
from cluster.runner import RayRunner
from schemas.cluster import RayOptions
from schemas.model import ModelRef
from tests.cluster.conftest import wait_until
from tests.cluster.taught import FAULTY, taught

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_of_our_own")]


def scraped() -> dict[str, float]:
    """Values by name and labels, of our own metrics."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if line.startswith("ray_locum_")]
    return {name: float(value) for name, _, value in pairs}


def test_what_a_run_did_is_on_the_endpoint(archive: Path, tmp_path: Path) -> None:
    with RayRunner(RayOptions(workers="1")) as runner:
        report = taught(
            archive, tmp_path / "out", runner, teacher=ModelRef(factory=FAULTY, kwargs={"seconds": 0.2})
        )
        rows = report.summary.rows

        def clips() -> float:
            found = scraped()
            return sum(v for n, v in found.items() if n.startswith("ray_locum_clips") and "targets-" in n)

        wait_until(lambda: clips() == rows, 40)
        names = {name.partition("{")[0] for name in scraped()}
    assert {f"ray_{n}" for n in GAUGES} <= names, names
    assert {f"ray_{n}_total" for n in ("locum_clips", "locum_stage_seconds")} <= names, names
