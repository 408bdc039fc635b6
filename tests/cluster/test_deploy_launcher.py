"""The cluster launcher's file: Ray's own validation takes it, Ray's AWS provider starts its nodes, and Locum fits."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.sizing import Node
from tests.cluster.deployed import DEPLOY, MIB, ROOT, frames_bytes, loaded, missing, options_of, sized

pytestmark = pytest.mark.slow
GIB = 2.0**30
MEMORY = {"decode": 32 * GIB, "gpu": 32 * GIB, "head": 16 * GIB}
"""Of the instance types in the file."""
_ACCOUNT = "123456789012"
"""moto's."""


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """As ``ray up`` does it, before it speaks to a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_takes_the_file() -> None:
    prepared = validated(loaded("launcher-aws.yaml"))
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("max_worker", 3, "'max_worker' was unexpected"),
        ("available_node_types.gpu.min_workers", "one", "'one' is not of type 'integer'"),
        ("available_node_types.gpu.resources.GPU", "1", "'1' is not of type 'integer'"),
        ("provider.security_group", {"Groupname": "x"}, "'Groupname' was unexpected"),
        ("head_node_type", "haed", "`head_node_type` must be one of"),
        ("max_workers", 1, "smaller than the sum of `min_workers`"),
        ("setup_commands", [1], "1 is not of type 'string'"),
    ],
)
def test_ray_refuses_what_is_wrong(path: str, value: object, said: str) -> None:
    config = loaded("launcher-aws.yaml")
    *above, last = path.split(".")
    at = config
    for key in above:
        at = at[key]
    at[last] = value
    with pytest.raises(Exception, match=re.escape(said)):
        validated(config)


def test_files_to_mount_are_there_once_the_wheel_is_made() -> None:
    sources = set(loaded("launcher-aws.yaml")["file_mounts"].values())
    assert sources == {"dist", "constraints.txt"} and (ROOT / "constraints.txt").is_file()
    assert "pip wheel --no-deps -w dist ." in (ROOT / "docs" / "clusters.md").read_text()


def start_command(which: str) -> list[str]:
    """The words after ``ray start``."""
    (line,) = [c for c in loaded("launcher-aws.yaml")[which] if "ray start" in c]
    return shlex.split(line.partition("ray start")[2])


@pytest.mark.parametrize("which", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_start_knows_its_flags_and_keeps_off_the_ports_of_workers(which: str) -> None:
    import click
    from ray.scripts.scripts import start

    words = start_command(which)
    read = start.make_context("ray start", list(words))
    flags = {p.name: p.get_default(read) for p in start.params}
    first, last = int(flags["min_worker_port"]), int(flags["max_worker_port"])
    assert (first, last) == (10002, 19999)
    ports = [int(w.split("=")[1]) for w in words if re.fullmatch(r"--[a-z-]*port=\d+", w)]
    assert len(ports) >= 3 and len(set(ports)) == len(ports)
    assert not [p for p in ports if first <= p <= last]
    with pytest.raises(click.UsageError):
        start.make_context("ray start", [*words, "--metric-export-port=1"])


def test_the_head_only_drives() -> None:
    config = loaded("launcher-aws.yaml")
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    words = start_command("head_start_ray_commands")
    assert {"--head", "--num-cpus=0", "--num-gpus=0", "--include-dashboard=true"} <= set(words)
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


def nodes(which: str) -> list[Node]:
    """The cluster at its least or its most (``min_workers``, ``max_workers``), with Ray's own share for its store."""
    found = [Node(0, 0, 0.7 * MEMORY["head"], 0.3 * MEMORY["head"])]
    for name, kind in loaded("launcher-aws.yaml")["available_node_types"].items():
        has = kind["resources"]
        each = Node(has["CPU"], has.get("GPU", 0), 0.7 * MEMORY[name], 0.3 * MEMORY[name])
        found += [each] * kind.get(which, 0)
    return found


def test_the_run_of_the_job_file_fits_at_the_least_and_at_the_most() -> None:
    options = options_of(loaded("kuberay-job.yaml")["spec"]["entrypoint"])
    assert options.worker_range is not None
    most = options.worker_range[1]
    assert missing(nodes("min_workers"), options) == ""
    everyone = options.model_copy(update={"workers": str(most)})
    assert sized(nodes("max_workers"), everyone).least == most
    assert missing(nodes("max_workers"), everyone) == ""
    assert missing(nodes("min_workers"), everyone) != "", "this test could not fail"
    assert loaded("launcher-aws.yaml")["max_workers"] >= len(nodes("max_workers")) - 1


def test_frames_and_decoders_find_room_in_memory() -> None:
    options = options_of(loaded("kuberay-job.yaml")["spec"]["entrypoint"])
    for name, kind in loaded("launcher-aws.yaml")["available_node_types"].items():
        store = 0.3 * MEMORY[name]  # Ray's own share
        assert store >= frames_bytes(options, 2)
        assert kind["resources"]["CPU"] * options.decoder_memory_mb * MIB <= 0.9 * MEMORY[name]


def test_aws_knows_what_is_asked_of_it_and_a_typo_is_found() -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

    def errors(node: dict[str, Any]) -> str:
        report: str = (
            ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
        )
        return report

    for kind in loaded("launcher-aws.yaml")["available_node_types"].values():
        assert errors(kind["node_config"]) == ""
        assert "InstanceMarketOption" in errors({**kind["node_config"], "InstanceMarketOption": {}})


# ------------------------------------------------------------------ AWS, played by moto


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from moto import mock_aws

    (tmp_path / ".ssh").mkdir()
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield


def profile_of(name: str) -> None:
    """An instance profile and its role, as docs/clusters.md says to make them."""
    import boto3

    iam = boto3.client("iam", region_name="us-east-1")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def started(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Nodes by type: made ready and started as ``ray up`` and the autoscaler do it, by Ray's own AWS provider."""
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    ready = AWSNodeProvider.bootstrap_config(
        AWSNodeProvider.fillout_available_node_types_resources(validated(config))
    )
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name, kind in ready["available_node_types"].items():
        provider.create_node(kind["node_config"], {"ray-user-node-type": name, "ray-node-name": name}, 1)
    found = {}
    ec2 = boto3.client("ec2", region_name=ready["provider"]["region"])
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {t["Key"]: t["Value"] for t in instance["Tags"]}
            assert tags["ray-cluster-name"] == config["cluster_name"]
            found[tags["ray-user-node-type"]] = instance
    return found


@pytest.mark.usefixtures("aws")
def test_rays_aws_provider_starts_the_nodes() -> None:
    for name in ("locum-head", "locum-worker"):
        profile_of(name)
    found = started(loaded("launcher-aws.yaml"))
    assert {k: i["InstanceType"] for k, i in found.items()} == {
        "head": "m6i.xlarge",
        "decode": "c6i.4xlarge",
        "gpu": "g6.2xlarge",
    }
    assert {k for k, i in found.items() if i.get("InstanceLifecycle") == "spot"} == {"decode", "gpu"}
    assert len({i["Placement"]["AvailabilityZone"] for i in found.values()}) == 1
    profiles = {k: i["IamInstanceProfile"]["Arn"].rsplit("/", 1)[1] for k, i in found.items()}
    assert profiles == {"head": "locum-head", "decode": "locum-worker", "gpu": "locum-worker"}


@pytest.mark.usefixtures("aws")
def test_the_heads_policy_has_the_actions_that_its_autoscaler_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the actions: moto does not know on which resources they are called, nor conditions."""
    import boto3
    from moto.core import set_initial_no_auth_action_count
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    for name in ("locum-head", "locum-worker"):
        profile_of(name)
    ready = AWSNodeProvider.bootstrap_config(validated(loaded("launcher-aws.yaml")))
    policy = loaded("launcher-aws-head-policy.json")
    for statement in policy["Statement"]:
        statement["Resource"] = "*"
        statement.pop("Condition", None)
    iam = boto3.client("iam", region_name="us-east-1")
    document = (DEPLOY / "launcher-aws-head-policy.json").read_text().replace("111122223333", _ACCOUNT)
    iam.create_policy(PolicyName="whole", PolicyDocument=document)  # moto refuses a document that is none
    keys = {}
    for user, allowed in [("head", policy), ("other", {**policy, "Statement": policy["Statement"][:1]})]:
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(allowed))
        keys[user] = iam.create_access_key(UserName=user)["AccessKey"]

    @set_initial_no_auth_action_count(0)
    def scale(user: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[user]["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[user]["SecretAccessKey"])
        boto3.DEFAULT_SESSION = None
        credentials = {
            "aws_access_key_id": keys[user]["AccessKeyId"],
            "aws_secret_access_key": keys[user]["SecretAccessKey"],
        }
        provider = AWSNodeProvider({**ready["provider"], "aws_credentials": credentials}, "locum")
        node = ready["available_node_types"]["gpu"]["node_config"]
        provider.create_node(node, {"ray-node-name": "n", "ray-node-kind": "worker"}, 1)
        (there,) = provider.non_terminated_nodes({})
        provider.set_node_tags(there, {"ray-node-status": "up-to-date"})
        provider.terminate_nodes([there])
        assert provider.non_terminated_nodes({}) == []

    scale("head")
    with pytest.raises(NodeLaunchException, match="RunInstances"):
        scale("other")
