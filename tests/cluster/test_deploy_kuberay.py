"""KubeRay's files: their fields are ones that there are, and their numbers hold what Locum claims of them.

Not checked against KubeRay's CRD: see `tests.cluster.kuberay_fields`.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from cluster.sizing import Node
from tests.cluster.deployed import (
    DEPLOY,
    MIB,
    frames_bytes,
    loaded,
    missing,
    options_of,
    parsed,
    quantity,
    sized,
)
from tests.cluster.kuberay_fields import schema_of

NAMES = ("kuberay-account.yaml", "kuberay-cluster.yaml", "kuberay-job.yaml")


def errors(body: dict[str, Any]) -> list[str]:
    """What is wrong with an object of Kubernetes, each with its place."""
    from jsonschema import Draft202012Validator

    found = Draft202012Validator(schema_of(body["kind"])).iter_errors(body)
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in found]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_one(name: str) -> None:
    assert errors(loaded(name)) == []


def spec_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = loaded(name)["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return found


def changed(path: str, value: object) -> dict[str, Any]:
    """The job with another value at a path, whose last part may be new."""
    body = copy.deepcopy(loaded("kuberay-job.yaml"))
    at = body["spec"]
    *above, last = path.split(".")
    for key in above:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    return body


_WORKER_POD = "rayClusterSpec.workerGroupSpecs.1.template.spec"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("backofLimit", 3),
        ("backoffLimit", "3"),
        ("submissionMode", "K8sJob"),
        ("rayClusterSpec.enableInTreeAutoscaler", True),
        ("rayClusterSpec.autoscalerOptions.upscalingMode", "Fast"),
        ("rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("rayClusterSpec.workerGroupSpecs.0.minReplica", 1),
        ("rayClusterSpec.workerGroupSpecs.0.maxReplicas", "4"),
        (f"{_WORKER_POD}.terminationGracePeriod", 60),
        (f"{_WORKER_POD}.restartPolicy", 1),
        (f"{_WORKER_POD}.containers.0.volumeMount", []),
        (f"{_WORKER_POD}.volumes.0.emptyDir.size", "1Gi"),
    ],
)
def test_a_typo_is_found(path: str, value: object) -> None:
    (found,) = errors(changed(path, value))
    assert path.rsplit(".", 1)[-1] in found or str(value) in found


def test_both_files_bring_up_the_same_cluster() -> None:
    assert spec_of("kuberay-cluster.yaml") == spec_of("kuberay-job.yaml")


# ------------------------------------------------------------------ what the job runs


def entrypoint() -> str:
    text: str = loaded("kuberay-job.yaml")["spec"]["entrypoint"]
    return text


def test_the_job_runs_a_command_of_locum_and_may_be_repeated() -> None:
    spec = loaded("kuberay-job.yaml")["spec"]
    given = parsed(entrypoint())
    assert given["source"].startswith("s3://") and given["out"].startswith("s3://")
    assert (
        given["device"] == "cuda" and given["cluster"].ray is None
    )  # in a submitted job: that job's cluster
    assert (
        spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0
    )
    assert "activeDeadlineSeconds" not in spec and "runtimeEnvYAML" not in spec
    with pytest.raises(Exception, match="decoder"):
        parsed(entrypoint().replace("--decoders", "--decodrs"))


def test_ray_is_the_one_that_is_tested() -> None:
    from tests.cluster.deployed import ROOT

    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert spec_of("kuberay-job.yaml")["rayVersion"] == pinned


# ------------------------------------------------------------------ the numbers


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return dict(only)


def node(group: dict[str, Any]) -> Node:
    """As Ray counts a pod of a group."""
    params, limits = group["rayStartParams"], container(group)["resources"]["limits"]
    return Node(
        float(params["num-cpus"]),
        float(params.get("num-gpus", 0)),
        quantity(limits["memory"]),
        float(params["object-store-memory"]),
    )


def nodes(which: str) -> list[Node]:
    """The cluster at its least or its most: ``minReplicas`` or ``maxReplicas``."""
    spec = spec_of("kuberay-job.yaml")
    workers = [node(g) for g in spec["workerGroupSpecs"] for _ in range(g[which])]
    return [node(spec["headGroupSpec"]), *workers]


def test_the_run_fits_at_the_least_and_at_the_most() -> None:
    options = options_of(entrypoint())
    assert options.worker_range is not None
    most = options.worker_range[1]
    everyone = options.model_copy(update={"workers": str(most)})
    assert missing(nodes("minReplicas"), options) == ""
    assert missing(nodes("maxReplicas"), everyone) == ""
    assert sized(nodes("maxReplicas"), everyone).shape == sized(nodes("minReplicas"), options).shape
    assert missing(nodes("minReplicas"), everyone) != "", "this test could not fail"


def test_the_head_only_drives() -> None:
    head = spec_of("kuberay-job.yaml")["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(head)["resources"]["limits"]


GROUPS = {
    "head": spec_of("kuberay-job.yaml")["headGroupSpec"],
    **{g["groupName"]: g for g in spec_of("kuberay-job.yaml")["workerGroupSpecs"]},
}


@pytest.mark.parametrize("name", GROUPS)
def test_frames_find_room_in_the_pod(name: str) -> None:
    group, options = GROUPS[name], options_of(entrypoint())
    spec = group["template"]["spec"]
    (shm,) = [v["emptyDir"] for v in spec["volumes"] if v["name"] == "shm"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container(group)["volumeMounts"]
    store = int(group["rayStartParams"]["object-store-memory"])
    assert shm["medium"] == "Memory" and quantity(shm["sizeLimit"]) > store
    if name == "head":
        return
    workers = {"gpu": 1, "decode": 2}[name]
    assert store >= frames_bytes(options, workers)
    decoders = int(group["rayStartParams"]["num-cpus"])
    worst = decoders * options.decoder_memory_mb * MIB + quantity(shm["sizeLimit"])
    assert worst < quantity(container(group)["resources"]["limits"]["memory"])


@pytest.mark.parametrize("name", GROUPS)
def test_pods_ask_for_what_they_tell_ray(name: str) -> None:
    group = GROUPS[name]
    asked, limits = (container(group)["resources"][k] for k in ("requests", "limits"))
    assert all(quantity(asked[k]) <= quantity(limits[k]) for k in asked) and set(asked) == set(limits)
    assert asked["memory"] == limits["memory"]
    assert quantity(asked["cpu"]) >= int(group["rayStartParams"]["num-cpus"])
    assert limits.get("nvidia.com/gpu", "0") == group["rayStartParams"].get("num-gpus", "0")


@pytest.mark.parametrize("name", GROUPS)
def test_pods_have_the_account_and_no_more_rights(name: str) -> None:
    spec = GROUPS[name]["template"]["spec"]
    assert spec["serviceAccountName"] == loaded("kuberay-account.yaml")["metadata"]["name"]
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    assert f"USER {spec['securityContext']['runAsUser']}" in (DEPLOY / "Dockerfile").read_text()
    own = container(GROUPS[name])["securityContext"]
    assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert not [v for v in spec["volumes"] if "emptyDir" not in v]  # nothing is kept, nothing is mounted


@pytest.mark.parametrize("name", ["decode", "gpu"])
def test_a_pod_that_must_go_has_time_to_say_so(name: str) -> None:
    import ray._private.ray_constants as constants

    spec = GROUPS[name]["template"]["spec"]
    variables = {v["name"]: v["value"] for v in container(GROUPS[name])["env"]}
    (variable,) = variables
    assert hasattr(constants, variable)  # Ray reads it under this name
    assert float(variables[variable]) < spec["terminationGracePeriodSeconds"] < 120  # a spot node's notice


def test_groups_can_grow_by_whole_workers() -> None:
    options, groups = options_of(entrypoint()), GROUPS
    assert options.decoders is not None
    for which in ("minReplicas", "maxReplicas"):
        cores = sum(int(g["rayStartParams"]["num-cpus"]) * g[which] for n, g in groups.items() if n != "head")
        assert cores >= options.decoders * groups["gpu"][which]
    assert all(
        g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for n, g in groups.items() if n != "head"
    )
