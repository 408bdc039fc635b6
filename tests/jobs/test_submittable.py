"""What may be sent to a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from jobs.cli import COMMANDS
from jobs.submittable import VERBS, checked_command, checked_env, checked_folder
from schemas.errors import SettingsError

FACTORY = ["--teacher.factory", "mine.py:build"]
TEACH = ["teach", "s3://b/in", "-o", "s3://b/out", *FACTORY]


def test_the_command_is_what_would_run_here() -> None:
    words = [*TEACH, "--teacher.kwargs", '{"name": "it\'s $HOME"}', "--json"]
    command = checked_command(words)
    assert command.verb == "teach" and command.config is None and command.answers_in_json
    assert shlex.split(command.entrypoint) == ["locum", *words]


def test_every_command_but_those_of_jobs_may_be_sent() -> None:
    assert set(COMMANDS) - set(VERBS) == {"submit", "jobs"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which command"),
        (["nonsense"], "'nonsense' is no command"),
        (["--address", "x"], "'--address' is no command"),
        (["submit", "--", *TEACH], "'submit' is no command"),
        (["jobs", "list"], "'jobs' is no command"),
        ([*TEACH, "--ray", "auto"], "--ray does not go with submit"),
        ([*TEACH, "--ray=auto"], "--ray does not go with submit"),
        (["teach", "s3://b/in", "-o", "out", *FACTORY], "-o out"),
        (["demo"], "-o demo-out"),
        (["teach", "https://h/v.mp4?X-Amz-Signature=hush", *TEACH[2:]], "a password or a signature"),
        (["teach", "https://me:hush@h/v.mp4", *TEACH[2:]], "a password or a signature"),
        (["teach", "https://h/my file.mp4?sig=hush", *TEACH[2:]], "a password or a signature"),
        ([*TEACH, '--teacher.kwargs={"url": "https://me:hush@h/w"}'], "a password or a signature"),
        ([*TEACH, "--config", "locum.yaml"], "--working-dir"),
        (["teach", "--help"], "asks for help"),
    ],
)
def test_what_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        checked_command(words)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("name", ["s3://b/what?.mp4", "s3://b/a@b.mp4", "--uri=s3://b/what?.mp4"])
def test_names_that_only_look_like_secrets_are_sent(name: str) -> None:
    assert checked_command(["prune", "s3://b/store", *(["--uri", name] if "=" not in name else [name])])


def test_wrong_flags_are_found_here() -> None:
    for wrong in (["--no-such-flag", "1"], ["--clip.seconds", "many"]):
        with pytest.raises(CycloptsError):
            checked_command([*TEACH, *wrong])
    assert checked_command([*TEACH, "--local"])


def test_a_file_of_settings_goes_along_and_counts(tmp_path: Path) -> None:
    config = tmp_path / "conf" / "locum.yaml"
    config.parent.mkdir()
    config.write_text("out: s3://b/out\nteacher: {factory: 'mine.py:build'}\n")
    words = ["teach", "s3://b/in", "--config", "conf/locum.yaml"]
    assert checked_command(words, str(tmp_path)).config == config.read_bytes()
    assert checked_command([*words[:2], "--config=conf/locum.yaml"], str(tmp_path)).config
    config.write_text("out: s3://b/out\nray: auto\nteacher: {factory: 'mine.py:build'}\n")
    with pytest.raises(SettingsError, match="'ray: auto' does not go with submit"):
        checked_command(words, str(tmp_path))
    config.write_text("out: s3://b/out\nwieghts: x\n")
    with pytest.raises(CycloptsError):
        checked_command(words, str(tmp_path))
    for elsewhere in (str(config), "../locum.yaml", f"file://{config}", "conf/../../locum.yaml"):
        with pytest.raises(SettingsError, match="is not within --working-dir"):
            checked_command([*words[:3], elsewhere], str(tmp_path))
    with pytest.raises(SettingsError, match="there is no file"):
        checked_command([*words[:3], "locum.yaml"], str(tmp_path))


def test_settings_that_the_cluster_reads_are_not_read_here() -> None:
    assert checked_command(["teach", "--config", "s3://b/nowhere.yaml"]).config is None
    with pytest.raises(CycloptsError):
        checked_command(
            ["index", "s3://b/in", "-o", "s3://b", "--config", "s3://b/c.yaml", "--no-such-flag", "1"]
        )


def test_variables_are_sent_and_secrets_are_not() -> None:
    harmless = [
        "A=1=2",
        "TOKENIZERS_PARALLELISM=false",
        "AWS_SHARED_CREDENTIALS_FILE=/etc/aws",
        "_B=",
        "HF_TOKEN_PATH=/x",
    ]
    assert checked_env(harmless) == {
        "A": "1=2",
        "TOKENIZERS_PARALLELISM": "false",
        "AWS_SHARED_CREDENTIALS_FILE": "/etc/aws",
        "_B": "",
        "HF_TOKEN_PATH": "/x",
    }
    secrets = [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "HF_TOKEN",
        "DB_PASSWORD",
        "my_secret",
    ]
    azure = ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "ACCOUNT_KEY", "FSSPEC_S3_KEY"]
    for name in [*secrets, *azure, "WANDB_API_KEY", "TOKENS"]:
        with pytest.raises(SettingsError, match=f"--env {name} looks like a secret") as raised:
            checked_env([f"{name}=hush"])
        assert "hush" not in str(raised.value)
    with pytest.raises(SettingsError, match="FSSPEC_S3 looks like a secret"):
        checked_env(['FSSPEC_S3={"key": "me", "secret": "hush"}'])
    assert checked_env(['FSSPEC_S3={"endpoint_url": "http://x"}'])
    with pytest.raises(SettingsError, match="HTTPS_PROXY looks like a secret"):
        checked_env(["HTTPS_PROXY=http://me:hush@proxy:8080"])
    for pair in ("A", "=1", "1A=2", "A B=1"):
        with pytest.raises(SettingsError, match="NAME=VALUE"):
            checked_env([pair])


def test_folders_that_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()  # no package, hides nothing
    assert checked_folder(str(tmp_path)) == str(tmp_path)
    (tmp_path / "schemas.py").touch()
    with pytest.raises(SettingsError, match="'schemas' would hide"):
        checked_folder(str(tmp_path))
    (tmp_path / "jobs" / "cli.py").touch()  # a checkout of Locum: all of it goes along
    assert checked_folder(str(tmp_path))
    with pytest.raises(SettingsError, match="no such folder"):
        checked_folder(str(tmp_path / "absent"))


@pytest.mark.parametrize("flag", ["--table", "--figure"])
def test_no_output_goes_to_a_folder_that_ends_with_the_job(flag: str) -> None:
    command = ["simulate", "s3://b/student", flag, "found.parquet" if flag == "--table" else "found.png"]
    with pytest.raises(SettingsError, match=f"{flag} found"):
        checked_command(command)
    assert checked_command([*command[:-1], f"s3://b/{command[-1]}"])
