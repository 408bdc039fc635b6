"""What cluster/deploy holds: an image that parses, policies that are enough for a store, no secret; all is shipped."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from tests.cluster.deployed import DEPLOY, ROOT, loaded, parsed
from tests.s3_server import environment, forget_clients

FILES = sorted(p for p in DEPLOY.iterdir() if p.is_file())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()

# ------------------------------------------------------------------ the image

INSTRUCTIONS = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR"
)


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and what they are given.

    Raises
    ------
    ValueError
        If it has one that there is not.
    """
    joined = re.sub(r"\\\n(?:\s*#.*\n)*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.strip().partition(" ")
        if not INSTRUCTIONS.fullmatch(name) or not rest.strip():
            raise ValueError(f"not an instruction: {line!r}")
        found.append((name, " ".join(rest.split())))
    return found


def test_the_image_parses_and_a_typo_would_not() -> None:
    found = instructions(DOCKERFILE)
    assert [name for name, _ in found if name == "FROM"] == ["FROM"]
    assert found[0] == ("ARG", "BASE=python:3.11-slim") and found[1] == ("FROM", "${BASE}")
    for wrong in (DOCKERFILE.replace("WORKDIR ", "WORKDIRS "), DOCKERFILE.replace("USER 1000", "USER")):
        with pytest.raises(ValueError, match="not an instruction"):
            instructions(wrong)


def test_the_image_ends_as_a_user_that_is_not_root() -> None:
    users = [rest for name, rest in instructions(DOCKERFILE) if name == "USER"]
    assert users[-1].isdigit() and int(users[-1]) > 0  # a number: Kubernetes cannot look at names


def test_the_image_copies_what_is_there_and_all_that_it_needs() -> None:
    copied = [rest.split()[:-1] for name, rest in instructions(DOCKERFILE) if name == "COPY"]
    sources = {s for group in copied for s in group}
    assert all((ROOT / s).exists() for s in sources)
    assert {"jobs", "cluster", "pipeline", "schemas", "constraints.txt", "pyproject.toml"} <= sources
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore and {line[1:] for line in ignore if line.startswith("!")} == sources


def test_the_image_installs_pinned_versions_and_keeps_no_lists() -> None:
    runs = [rest for name, rest in instructions(DOCKERFILE) if name == "RUN"]
    installs = [r for r in runs if "pip install" in r]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in r or "--no-deps" in r for r in installs)
    assert all(
        "--no-install-recommends" in r and "rm -rf /var/lib/apt/lists" in r for r in runs if "apt-get" in r
    )


def test_the_shell_of_the_image_is_one() -> None:
    for name, rest in instructions(DOCKERFILE):
        if name == "RUN":
            done = subprocess.run(["bash", "-n"], input=rest, text=True, capture_output=True)
            assert done.returncode == 0, f"{rest}\n{done.stderr}"


def test_what_the_image_asks_of_pyproject_is_there() -> None:
    (code,) = re.findall(r'RUN python -c "([^"]+)"', DOCKERFILE)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == pyproject()["project"]["dependencies"]


def test_the_image_has_the_python_that_locum_wants() -> None:
    wanted = pyproject()["project"]["requires-python"]
    assert wanted == ">=3.11" and DOCKERFILE.count("(3, 11)") == 2


# ------------------------------------------------------------------ S3


def statements(policy: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Each action and resource of a policy."""
    for statement in policy["Statement"]:  # type: ignore[attr-defined]
        actions, resources = statement["Action"], statement["Resource"]
        for action in actions if isinstance(actions, list) else [actions]:
            for resource in resources if isinstance(resources, list) else [resources]:
                yield action, resource


def test_the_policy_is_least() -> None:
    allowed = set(statements(loaded("s3-policy.json")))
    assert not [a for a, r in allowed if "*" in a or r == "*"]
    writes = {r for a, r in allowed if a in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")}
    assert writes == {"arn:aws:s3:::example-locum/out/*"}
    assert {a for a, _ in allowed} == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }


_KEPT = """
import json, sys
from pathlib import Path
import boto3
from moto.server import ThreadedMotoServer
from moto.core.authorization import ActionAuthenticatorMixin as Guard

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://%s:%s" % server.get_host_and_port()
of = dict(endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
s3, iam = boto3.client("s3", **of), boto3.client("iam", **of)
for bucket in ("example-archive", "example-locum"):
    s3.create_bucket(Bucket=bucket)
lifecycle = json.loads(Path(sys.argv[2]).read_text())
s3.put_bucket_lifecycle_configuration(Bucket="example-locum", LifecycleConfiguration=lifecycle)
rules = s3.get_bucket_lifecycle_configuration(Bucket="example-locum")["Rules"]
for place in ("example-archive/videos/a.mp4", "example-archive/other/a.mp4", "example-locum/models/w"):
    bucket, _, key = place.partition("/")
    s3.put_object(Bucket=bucket, Key=key, Body=b"x" * 100)
iam.create_user(UserName="locum")
policy = Path(sys.argv[1]).read_text()
arn = iam.create_policy(PolicyName="locum", PolicyDocument=policy)["Policy"]["Arn"]
iam.attach_user_policy(UserName="locum", PolicyArn=arn)
key = iam.create_access_key(UserName="locum")["AccessKey"]
try:
    iam.create_policy(PolicyName="wrong", PolicyDocument=policy.replace('"Effect"', '"Efect"'))
    refuses = False
except iam.exceptions.MalformedPolicyDocumentException:
    refuses = True
from moto import settings
Guard.request_count, settings.INITIAL_NO_AUTH_ACTION_COUNT = 0, 0
print(json.dumps([url, key["AccessKeyId"], key["SecretAccessKey"], rules, refuses]), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[dict[str, object]], bool]]:
    """An S3 server of its own that grants what s3-policy.json does and nothing else, and the clients of this test as
    the user whom it is granted to. What it made of the lifecycle rules, and whether it refused a policy with a typo."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KEPT, str(DEPLOY / "s3-policy.json"), str(DEPLOY / "s3-lifecycle.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment("")} | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        text=True,
    )
    try:
        assert process.stdout is not None
        url, name, secret, rules, refuses = json.loads(process.stdout.readline())
        variables = environment(url) | {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        forget_clients()
        yield rules, refuses
    finally:
        forget_clients()
        process.communicate("")


@pytest.mark.s3
@pytest.mark.slow
def test_the_policy_is_enough_for_a_store_and_no_more(guarded: tuple[list[dict[str, object]], bool]) -> None:
    from pipeline.manifest import read_entries
    from pipeline.store.files import StoreFiles
    from schemas.errors import LocumError

    rules, refuses = guarded
    assert refuses, "the server takes any policy, so this test proves nothing"
    assert rules[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}

    entries = read_entries("s3://example-archive/videos/")
    assert entries["uri"].to_pylist() == ["s3://example-archive/videos/a.mp4"]
    store = StoreFiles("s3://example-locum/out/targets-0123")
    assert store.put_new("data/g0001-000000.parquet", b"rows of one writer")
    assert not store.put_new("data/g0001-000000.parquet", b"rows of another")
    store.put_over("spec.json", b"{}")
    assert store.exists("spec.json") and not store.exists("never-there")
    assert store.list("data") == ["g0001-000000.parquet"] and store.read("spec.json") == b"{}"
    store.delete("spec.json")
    assert StoreFiles("s3://example-locum/models").read("w") == b"x" * 100

    archive = StoreFiles("s3://example-archive/videos")
    for refused in (
        lambda: archive.put_over("b.mp4", b"x"),
        lambda: archive.delete("a.mp4"),
        lambda: StoreFiles("s3://example-archive/other").read("a.mp4"),
        lambda: StoreFiles("s3://example-locum/models").put_over("w", b"x"),
    ):
        with pytest.raises(LocumError):
            refused()
    assert archive.read("a.mp4") == b"x" * 100


# ------------------------------------------------------------------ all of it


def pyproject() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())  # type: ignore[return-value]


def test_every_file_is_shipped_and_named_on_the_page() -> None:
    patterns = pyproject()["tool"]["setuptools"]["package-data"]["cluster"]  # type: ignore[index]
    page = (ROOT / "docs" / "clusters.md").read_text()
    assert {p.name for p in DEPLOY.iterdir()} == {p.name for p in FILES}, "a folder would not be shipped"
    for path in FILES:
        assert any(fnmatch(f"deploy/{path.name}", pattern) for pattern in patterns), path.name
        assert path.name in page or path.name == "Dockerfile.dockerignore", path.name


SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|AWS_(ACCESS_KEY_ID|SECRET|SESSION)|password|BEGIN [A-Z ]*PRIVATE KEY", re.I
)


def test_no_file_holds_or_asks_for_a_secret() -> None:
    assert SECRET.search("export AWS_SECRET_ACCESS_KEY=x") and SECRET.search("AKIA" + "A" * 16)
    for path in FILES:
        assert not SECRET.search(path.read_text()), path.name


# ------------------------------------------------------------------ the page


def commands(first: str) -> list[str]:
    """The commands on the page that begin so, with their continuation lines."""
    page = (ROOT / "docs" / "clusters.md").read_text()
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)).replace("\\\n", " ")
    lines = [re.sub(r"\s+# .*", "", line).strip() for line in blocks.splitlines()]
    return [line for line in lines if line.startswith(first)]


def sent(command: str) -> str:
    """The command that ``locum submit`` or ``ray job submit`` is given."""
    words = shlex.split(command)
    rest = words[words.index("--") + 1 :]
    return shlex.join(rest if rest[0] == "locum" else ["locum", *rest])


def test_every_command_of_locum_on_the_page_is_one() -> None:
    found = commands("locum ")
    assert len(found) >= 2
    for command in found:
        parsed(command)
        if " -- " in command:
            parsed(sent(command))
    with pytest.raises(Exception, match="decoder"):
        parsed(sent(next(c for c in found if "--decoders" in c)).replace("--decoders", "--decodrs"))


@pytest.mark.slow
def test_every_command_of_ray_on_the_page_is_one() -> None:
    import click
    from ray.scripts.scripts import cli

    found = commands("ray ")
    assert len(found) >= 5

    def read(command: str) -> None:
        group: click.Command = cli
        words = shlex.split(command)[1:]
        while isinstance(group, click.Group):
            group, words = group.commands[words[0]], words[1:]
        group.make_context("ray", list(words))

    for command in found:
        read(command)
        if " -- " in command:
            parsed(sent(command))
    with pytest.raises(click.UsageError):
        read("ray up --yess cluster/deploy/launcher-aws.yaml")
