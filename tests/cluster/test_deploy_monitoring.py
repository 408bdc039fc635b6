"""The dashboard, the alerts and the scraping: they ask for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cluster.metrics import COUNTERS, GAUGES
from tests.cluster.deployed import DEPLOY, loaded

LOCUM = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
"""As Prometheus sees what `cluster.metrics` makes: Ray puts ``ray_`` before a name, and ``_total`` behind counters."""
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABELS = re.compile("store|state|stage|instance|RayNodeType|GpuIndex|GpuDeviceName|Location|Name")
_PROMQL = re.compile("sum|avg|max|min|by|rate|increase|delta|and|or|unless")
_STATES = {
    "pending",
    "computing",
    "computed",
    "committed",
    "elsewhere",
    "failed",
    "waiting",
    "starting",
    "ready",
}


def rays_own() -> set[str]:
    """Names that Ray's own dashboards ask for."""
    import ray

    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    text = (folder / "default_dashboard_panels.py").read_text()
    return set(re.findall(r"\bray_[a-z_]+", text))


def metrics(expr: str) -> set[str]:
    """The metrics that an expression asks for; every other word has to be PromQL's, or the name of a label."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\[[^]]*\]", "", bare)
    if bare.count("(") != bare.count(")") or bare.count("{") != bare.count("}"):
        raise ValueError(f"brackets do not match: {expr}")
    words = set(_WORD.findall(bare))
    found = {w for w in words if w.startswith("ray_")}
    strange = {w for w in words - found if not _PROMQL.fullmatch(w) and not _LABELS.fullmatch(w)}
    if strange or not found:
        raise ValueError(f"{strange or 'no metric'} in {expr}")
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana-locum.json").read_text())["panels"]
    return found


def graphs() -> list[dict[str, Any]]:
    return [p for p in panels() if p["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in graphs():
        for target in panel["targets"]:
            yield target["expr"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in loaded("alerts.yaml")["groups"] for rule in group["rules"]]


def test_every_panel_asks_for_metrics_that_there_are() -> None:
    known = LOCUM | rays_own()
    for expr in expressions():
        assert metrics(expr) <= known, expr
    for wrong in ("sum(ray_locum_clip_total)", "sum by (stoer) (ray_locum_shards)", "sum(ray_locum_shards"):
        try:
            assert not metrics(wrong) <= known
        except ValueError:
            pass
        else:
            assert "clip_total" in wrong


def test_every_metric_of_locum_is_shown() -> None:
    assert {m for e in expressions() for m in metrics(e)} >= LOCUM


def test_states_are_those_that_there_are() -> None:
    text = "\n".join([*expressions(), *(rule["expr"] for rule in alerts())])
    named = {s for states in re.findall(r'state=~?"([^"]+)"', text) for s in states.split("|")}
    assert named <= _STATES and named
    source = (Path(__file__).parents[2] / "cluster" / "metrics.py").read_text()
    assert all(f'"{state}"' in source for state in _STATES)


def test_stages_are_those_that_a_run_notes() -> None:
    from jobs.commands.profile import STAGES

    named = set(re.findall(r'stage="([^"]+)"', "\n".join(expressions())))
    assert named == {"teacher", "wait", "decode", "read"} <= {name for name, *_ in STAGES}


def test_every_panel_asks_where_it_is_told_and_for_the_stores_that_are_chosen() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in graphs():
        assert panel["datasource"] == source and panel["targets"] and panel["description"], panel["title"]
        assert all(t["datasource"] == source for t in panel["targets"])
        refs = [t["refId"] for t in panel["targets"]]
        assert len(set(refs)) == len(refs)
    for expr in expressions():
        selectors = re.findall(r"ray_locum_[a-z_]+(\{[^}]*\})?", expr)
        assert all('store=~"$store"' in s for s in selectors), expr
    variables = {
        v["name"]: v for v in json.loads((DEPLOY / "grafana-locum.json").read_text())["templating"]["list"]
    }
    assert (
        variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    )
    asked = re.fullmatch(r"label_values\((\w+), store\)", variables["store"]["definition"])
    assert asked is not None and asked[1] in LOCUM and variables["store"]["datasource"] == source


def test_panels_have_numbers_and_places_of_their_own() -> None:
    ids = [p["id"] for p in panels()]
    assert len(set(ids)) == len(ids)
    boxes = [[p["gridPos"][k] for k in "xywh"] for p in panels()]
    cells = [{(column, row) for column in range(x, x + w) for row in range(y, y + h)} for x, y, w, h in boxes]
    assert all(0 <= column < 24 for covered in cells for column, _ in covered)
    assert not [1 for a, b in combinations(cells, 2) if a & b]


# ------------------------------------------------------------------ alerts and scraping


def test_alerts_ask_for_metrics_that_there_are_and_say_what_to_do() -> None:
    rules = alerts()
    assert {"LocumStalled", "LocumQuarantinesMany", "LocumLosesWorkers"} <= {r["alert"] for r in rules}
    for rule in rules:
        assert metrics(rule["expr"]) <= LOCUM, rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_prometheus_reads_the_file_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = loaded("prometheus.yaml")
    (job,) = config["scrape_configs"]
    (found,) = job["file_sd_configs"]
    assert found["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
    assert all((DEPLOY / name).is_file() for name in config["rule_files"])


def test_the_pod_monitor_looks_for_the_port_that_pods_name() -> None:
    monitor, spec = loaded("kuberay-podmonitor.yaml"), loaded("kuberay-cluster.yaml")["spec"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert ports[endpoint["port"]] == 8080


# ------------------------------------------------------------------ by Prometheus itself

_SERIES = {
    # Nothing moves on a; on b it does.
    'ray_locum_seconds_since_progress{store="a"}': "0+60x60",
    'ray_locum_seconds_since_progress{store="b"}': "30x60",
    # As many videos are quarantined on both; on b they are few among its clips.
    'ray_locum_videos_quarantined_total{store="a"}': "0+5x60",
    'ray_locum_videos_quarantined_total{store="b"}': "0+5x60",
    'ray_locum_clips_total{store="a"}': "0+100x60",
    'ray_locum_clips_total{store="b"}': "0+1000x60",
    # As many workers are lost on both; on b they are few among its workers. c has none, and d is done.
    'ray_locum_workers_lost_total{store="a"}': "0+1x60",
    'ray_locum_workers_lost_total{store="b"}': "0+1x60",
    'ray_locum_workers{store="a",state="ready"}': "1x60",
    'ray_locum_workers{store="b",state="ready"}': "40x60",
    'ray_locum_workers{store="c",state="ready"}': "0x60",
    'ray_locum_workers{store="d",state="ready"}': "0x60",
    'ray_locum_shards{store="c",state="pending"}': "9x60",
    'ray_locum_shards{store="d",state="pending"}': "0x60",
    'ray_locum_shards{store="b",state="failed"}': "1x60",
    'ray_locum_shards{store="a",state="failed"}': "0x60",
}
_FIRES = {
    ("9m", "LocumStalled"): [],
    ("13m", "LocumStalled"): [("a", "critical")],
    ("50m", "LocumQuarantinesMany"): [("a", "warning")],
    ("50m", "LocumLosesWorkers"): [("a", "warning")],
    ("10m", "LocumHasNoWorkers"): [],
    ("50m", "LocumHasNoWorkers"): [("c", "warning")],
    ("50m", "LocumShardsFailed"): [("b", "warning")],
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_takes_expressions_and_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Every expression of the dashboard is checked as a rule. Alerts are tested without their words."""
    rules = [{"record": f"panel:{i}", "expr": e.replace("$store", ".+")} for i, e in enumerate(expressions())]
    mute = [{k: v for k, v in rule.items() if k != "annotations"} for rule in alerts()]
    cases = [
        {
            "eval_time": at,
            "alertname": name,
            "exp_alerts": [{"exp_labels": {"store": store, "severity": how}} for store, how in fire],
        }
        for (at, name), fire in _FIRES.items()
    ]
    series = [{"series": name, "values": values} for name, values in _SERIES.items()]
    for file, body in {
        "panels.yaml": {"groups": [{"name": "panels", "rules": rules}]},
        "mute.yaml": {"groups": [{"name": "alerts", "rules": mute}]},
        "tests.yaml": {
            "rule_files": ["mute.yaml"],
            "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": cases}],
        },
    }.items():
        (tmp_path / file).write_text(json.dumps(body))
    for words in (
        ["check", "config", str(DEPLOY / "prometheus.yaml")],
        ["check", "rules", str(DEPLOY / "alerts.yaml"), "panels.yaml"],
        ["test", "rules", "tests.yaml"],
    ):
        done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
