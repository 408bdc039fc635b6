"""Submitting to a cluster that is a dictionary: what is sent, when not, and what a shell sees."""

from __future__ import annotations

import json
import logging
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import submit as module
from jobs.cli import run
from jobs.submit import SubmitOptions, Submitted, submit
from pipeline.logs import about, configure
from schemas.errors import RetryableError, SettingsError
from schemas.submission import FAILED, PENDING, RUNNING, STOPPED, SUCCEEDED, Job
from tests.fake_jobs import FakeJobs

STATUS = ["status", "s3://b/store"]


def sent(jobs: FakeJobs, words: list[str], **options: object) -> Submitted:
    return submit(words, SubmitOptions(**options), lambda _: jobs)  # type: ignore[arg-type]


def test_a_command_is_sent_once_and_again_when_it_has_ended() -> None:
    jobs = FakeJobs()
    first = sent(jobs, STATUS, env=("A=1",))
    again = sent(jobs, [*STATUS, "--json"])
    assert not first.attached and again.attached and again.id == first.id
    assert jobs.sent == [
        {"id": first.id, "entrypoint": "locum status s3://b/store", "folder": "", "env": {"A": "1"}}
    ]
    assert jobs.there[first.id].command == "status s3://b/store" and jobs.there[first.id].release
    for number, status in enumerate((STOPPED, FAILED, SUCCEEDED), 2):
        last = list(jobs.there)[-1]
        jobs.there[last] = replace(jobs.there[last], status=status)
        assert sent(jobs, STATUS).id == f"{first.id}-{number}"
    assert sent(jobs, ["verify", "s3://b/store"]).id.startswith("locum-verify-")


def test_of_two_at_the_same_moment_the_slower_one_follows_the_other() -> None:
    jobs = FakeJobs()
    first = sent(jobs, STATUS)
    jobs.hidden = frozenset({first.id})  # sent after the second had looked
    second = sent(jobs, STATUS)
    assert second.attached and second.id == first.id and len(jobs.sent) == 1


def test_what_a_folder_holds_is_part_of_the_work(tmp_path: Path) -> None:
    jobs = FakeJobs()
    plain, along = sent(jobs, STATUS), sent(jobs, STATUS, folder=str(tmp_path))
    assert plain.id != along.id and jobs.uploaded == [str(tmp_path)]
    assert jobs.sent[-1]["folder"] == f"gcs://{tmp_path}.zip"


def test_an_id_may_be_given() -> None:
    jobs = FakeJobs()
    assert sent(jobs, STATUS, job_id="mine").id == "mine"
    jobs.there["mine"] = Job("mine", SUCCEEDED)
    assert sent(jobs, ["verify", "s3://b/store"], job_id="mine").id == "mine-2"


def test_under_a_given_id_another_command_is_not_followed() -> None:
    jobs = FakeJobs()
    sent(jobs, STATUS, job_id="mine")
    assert sent(jobs, [*STATUS, "--json"], job_id="mine").attached
    with pytest.raises(SettingsError, match=r"under that name runs status s3://b/store"):
        sent(jobs, ["verify", "s3://b/store"], job_id="mine")
    jobs.there["theirs"] = Job("theirs", RUNNING)
    with pytest.raises(SettingsError, match="a job that Locum did not send"):
        sent(jobs, STATUS, job_id="theirs")
    assert len(jobs.sent) == 1


def test_nothing_is_asked_of_a_cluster_for_what_may_not_be_sent() -> None:
    def connect(_: str | None) -> FakeJobs:
        raise AssertionError("asked")

    for words, options in ((["submit"], {}), (STATUS, {"env": ("X_TOKEN=1",)}), (STATUS, {"job_id": "a b"})):
        with pytest.raises(SettingsError):
            submit(words, SubmitOptions(**options), connect)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------- the command line


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    """What every address leads to. It ends jobs at once."""
    jobs = FakeJobs(printed="reading\n", ends_as=Job("", SUCCEEDED, driver_exit_code=0))
    monkeypatch.setattr(module, "ray_jobs", lambda _: jobs)
    return jobs


def test_the_log_is_the_answer(cluster: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.printed = "reading\n2 videos"
    assert run(["submit", "--", *STATUS]) == 0
    out, err = capsys.readouterr()
    (job_id,) = cluster.there
    assert out == "reading\n2 videos\n"
    assert f"{job_id} was submitted" in err and f"jobs stop {job_id} --address http://cluster:8265" in err


def test_the_commands_answer_is_found_in_its_log(
    cluster: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.printed = 'reading\n{"videos": 2}\n{no json}\nlocum: a word\n'
    assert run(["submit", "--", *STATUS, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == '{"videos": 2}\n' and "reading" in err and "a word" in err
    assert run(["submit", "--json", "--submission-id", "x", "--", *STATUS, "--json"]) == 0
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert body["id"] == "x" and body["answer"] == {"videos": 2} and body["exit_code"] == 0
    assert body["status"] == SUCCEEDED and body["attached"] is False


def test_log_lines_for_machines_are_no_answers(
    cluster: FakeJobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCUM_LOG", "json")
    log = logging.getLogger("locum")
    before = (log.handlers[:], log.level, log.propagate)
    try:
        configure()
        log.warning("a word", extra=about(video="v"))
        cluster.printed = capsys.readouterr().err + '{"videos": 2}\n'
    finally:
        log.handlers[:], log.level, log.propagate = before
    assert cluster.printed.startswith("{") and "a word" in cluster.printed
    monkeypatch.delenv("LOCUM_LOG")
    assert run(["submit", "--", *STATUS, "--json"]) == 0
    assert capsys.readouterr().out == '{"videos": 2}\n'


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (Job("", FAILED, driver_exit_code=3), 3, "FAILED, exit code 3"),
        (Job("", FAILED, driver_exit_code=127), 2, "no locum on the PATH"),
        (Job("", FAILED, error="JOB_SUPERVISOR_ACTOR_DIED", message="the node went"), 75, "the node went"),
        (Job("", STOPPED), 143, "the same submit goes on"),
    ],
)
def test_it_ends_as_the_command_did(
    ended: Job, code: int, said: str, cluster: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.ends_as = ended
    assert run(["submit", "--", *STATUS]) == code
    assert said in capsys.readouterr().err


def test_detached(cluster: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--detach", "--", *STATUS]) == 0
    (job_id,) = cluster.there
    assert capsys.readouterr().out == f"{job_id}\n"
    assert run(["submit", "--detach", "--json", "--env", "A=1", "--", *STATUS]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"id": job_id, "address": "http://cluster:8265", "attached": True}
    assert "is under way there already" in err and "those of this --env do not count" in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_the_job_alone(
    signum: int, code: int, cluster: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> Job:
        raise KeyboardInterrupt(*([signum] if signum == signal.SIGTERM else []))

    cluster.one = interrupted  # type: ignore[method-assign,assignment]
    assert run(["submit", "--", *STATUS]) == code
    (job,) = cluster.there.values()
    err = capsys.readouterr().err
    assert job.active and "the job goes on" in err and f"jobs logs {job.id} --follow" in err


def test_an_absent_cluster_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: str | None) -> FakeJobs:
        raise RetryableError("no Ray dashboard answers at http://cluster:8265")

    monkeypatch.setattr(module, "ray_jobs", absent)
    for argv in (["submit", "--", *STATUS], ["jobs", "list"]):
        assert run(argv) == 75
        assert capsys.readouterr().err == "locum: no Ray dashboard answers at http://cluster:8265\n"


def test_flags_of_the_command_are_not_submits(
    cluster: FakeJobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("out: s3://b/out\nteacher: {factory: 'mine.py:build'}\n")
    argv = [
        "submit",
        "--working-dir",
        str(tmp_path),
        "--",
        "teach",
        "s3://b/in",
        "--config",
        "c.yaml",
        "--local",
    ]
    assert run(argv) == 0
    assert cluster.sent[0]["entrypoint"] == "locum teach s3://b/in --config c.yaml --local"
    capsys.readouterr()
    assert run(["submit", "teach", "s3://b/in", "--limit", "5"]) == 2
    assert "come after --" in " ".join(capsys.readouterr().err.replace("│", " ").split())


# ----------------------------------------------------------------------------------- locum jobs


@pytest.fixture
def several(cluster: FakeJobs) -> FakeJobs:
    cluster.ends_as = None
    ours = {"command": "teach s3://b/in", "release": "0.1"}
    for job in (
        Job("locum-teach-a", STOPPED, started_seconds=100.0, ended_seconds=160.0, **ours),  # type: ignore[arg-type]
        Job("locum-teach-a-2", RUNNING, started_seconds=200.0, **ours),  # type: ignore[arg-type]
        Job("locum-label-b", PENDING, message="waits for a node", **ours),  # type: ignore[arg-type]
        Job("raysubmit_x", SUCCEEDED),
    ):
        cluster.there[job.id] = job
    return cluster


def test_list_is_of_locums_jobs_the_newest_first(
    several: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "status", "started", "took", "command"]
    assert [line.split()[0] for line in lines] == ["locum-teach-a-2", "locum-teach-a", "locum-label-b"]
    assert "1 min 0 s" in lines[1] and lines[1].endswith("teach s3://b/in")
    assert run(["jobs", "list", "--json"]) == 0
    bodies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [body["status"] for body in bodies] == [RUNNING, STOPPED, PENDING] and bodies[1][
        "exit_code"
    ] == 143


def test_status_logs_and_stop(several: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "status", "locum-l"]) == 0
    assert "waits for a node" in capsys.readouterr().out
    assert run(["jobs", "logs", "locum-t"]) == 0
    assert capsys.readouterr().out == "reading\n"
    assert run(["jobs", "logs", "locum-t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "locum-teach-a-2", "log": "reading\n"}
    assert run(["jobs", "stop", "locum-t"]) == 0
    assert "the same submit goes on" in capsys.readouterr().out
    assert several.there["locum-teach-a-2"].status == STOPPED
    assert run(["jobs", "stop", "locum-t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == STOPPED
    assert run(["jobs", "logs", "locum-t", "--follow"]) == 143


@pytest.mark.parametrize(
    "argv", [["status"], ["status", "raysubmit_x"], ["list", "x"], ["stop", "x", "--follow"], ["nonsense"]]
)
def test_what_jobs_refuses(argv: list[str], several: FakeJobs) -> None:
    assert run(["jobs", *argv]) == 2
