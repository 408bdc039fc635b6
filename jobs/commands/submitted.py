"""`locum jobs` as the command line calls it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from jobs.commands.flags import Flag, Json
from schemas.errors import EXIT_OK, SettingsError
from schemas.submission import FAILED, PENDING, STOPPED

if TYPE_CHECKING:
    from cluster.jobs import Jobs
    from schemas.submission import Job

_COMMAND_LETTERS = 80


def jobs(
    action: Literal["list", "status", "logs", "stop"],
    job: str | None = None,
    *,
    address: str | None = None,
    follow: Flag = False,
    as_json: Json = False,
) -> int:
    """What became of submitted commands: locum jobs list, or status, logs or stop with a job's id.

    Parameters
    ----------
    action
        list: all of them, newest first. status: one of them. logs: what it printed. stop: end it, and wait until it has
        ended; the same submit goes on with what is missing.
    job
        Its id, or the beginning of it; of several attempts at the same command the last.
    address
        The cluster's dashboard, as for submit.
    follow
        With logs: go on until the job has ended, with its exit code.
    as_json
        Print one JSON object; list prints one a line.
    """
    from cluster.attempts import find
    from jobs.submit import ray_jobs

    if follow and action != "logs":
        raise SettingsError(f"--follow goes with logs, not with {action}")
    if follow and as_json:
        raise SettingsError("--json does not go with --follow")
    if action == "list":
        if job is not None:
            raise SettingsError(f"list takes no id, got {job!r}")
        return _list(ray_jobs(address), as_json=as_json)
    if job is None:
        raise SettingsError(
            f"the id of a job is wanted: locum jobs {action} ID; `locum jobs list` names them"
        )
    cluster = ray_jobs(address)
    found = find(job, [each for each in cluster.all() if each.release])
    if action == "status":
        return _status(found, as_json=as_json)
    if action == "logs":
        return _logs(cluster, found, follow=follow, as_json=as_json)
    return _stop(cluster, found, as_json=as_json)


def _list(cluster: Jobs, *, as_json: bool) -> int:
    ours = [each for each in cluster.all() if each.release]
    ours.sort(key=lambda each: each.started_seconds or 0.0, reverse=True)
    if as_json:
        for each in ours:
            print(json.dumps(each.to_json()))
    else:
        print(_table(ours, time.time()) if ours else f"no jobs of Locum's at {cluster.address}")
    return EXIT_OK


def _status(job: Job, *, as_json: bool) -> int:
    from jobs.commands.console import emit

    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    lines = [
        job.id,
        f"  {job.status}{code}",
        f"  {_begun(job)}, {_took(job, time.time())}",
        f"  locum {job.command}",
    ]
    if job.status == PENDING or (job.status == FAILED and job.driver_exit_code is None):
        lines.append("  " + " ".join(job.message.split()))
    emit(job.to_json(), as_json=as_json, text="\n".join(lines))
    return EXIT_OK


def _logs(cluster: Jobs, job: Job, *, follow: bool, as_json: bool) -> int:
    from jobs.commands.following import LogLines, follow_on_screen, say_ended

    if follow:
        ended = follow_on_screen(cluster, job.id, LogLines())
        if isinstance(ended, int):
            return ended
        say_ended(ended)
        return ended.exit_code or EXIT_OK
    log = cluster.log(job.id)
    if as_json:
        print(json.dumps({"id": job.id, "log": log}))
    else:
        sys.stdout.write(log if log.endswith("\n") or not log else f"{log}\n")
    return EXIT_OK


def _stop(cluster: Jobs, job: Job, *, as_json: bool) -> int:
    from cluster.follow import stop
    from jobs.commands.console import emit

    if not job.active:
        emit(job.to_json(), as_json=as_json, text=f"{job.id} had ended before: {job.status}")
        return EXIT_OK
    ended = stop(cluster, job.id)
    stopped = ended.status == STOPPED
    rest = ": the same submit goes on with what is missing" if stopped else ", before it was stopped"
    emit(ended.to_json(), as_json=as_json, text=f"{ended.id} {ended.status}{rest}")
    return EXIT_OK


def _table(jobs: Sequence[Job], now: float) -> str:
    """A line a job, with its columns under each other."""
    rows = [("id", "status", "started", "took", "command")]
    for job in jobs:
        command = (
            job.command if len(job.command) <= _COMMAND_LETTERS else f"{job.command[: _COMMAND_LETTERS - 1]}…"
        )
        rows.append((job.id, job.status, _begun(job), _took(job, now), command))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    )


def _begun(job: Job) -> str:
    if job.started_seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_seconds))


def _took(job: Job, now: float) -> str:
    from jobs.words import duration

    seconds = job.seconds(now)
    return "-" if seconds is None else duration(seconds)
