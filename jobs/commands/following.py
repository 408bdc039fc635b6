"""A job's log on a terminal, or in a script: what goes to stdout, what to stderr, and what Ctrl-C does.

The log holds both streams of the command. Without ``--json`` it is the answer, and goes to stdout. With it, stdout
holds JSON alone: the command's own answer is found again among its lines, and all others go to stderr.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from cluster.follow import follow
from cluster.jobs import Jobs
from schemas.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from schemas.submission import FAILED, STOPPED, Job

_LOG_FIELDS = frozenset({"time", "level", "logger", "message"})


class LogLines:
    """Prints a log that comes in pieces, a whole line at a time.

    ``answers`` says that the command was asked for JSON; ``as_json`` that its answer is to be kept, for it is part of
    another one.
    """

    def __init__(self, *, answers: bool = False, as_json: bool = False) -> None:
        self._answers, self._as_json = answers, as_json
        self._begun = ""
        self.answer: dict[str, Any] | None = None
        """The last answer, where there was one."""

    def show(self, text: str) -> None:
        """Print what has become whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._print(line)

    def close(self) -> None:
        """Print a last line without an end."""
        if self._begun:
            self._print(self._begun)
        self._begun = ""

    def _print(self, line: str) -> None:
        found = _json_object(line) if self._answers else None
        self.answer = self.answer if found is None else found
        answers = found is not None if self._answers else True
        print(line, file=sys.stdout if answers and not self._as_json else sys.stderr, flush=True)


def follow_on_screen(jobs: Jobs, job_id: str, lines: LogLines) -> Job | int:
    """The job once it has ended; where the user does not want to wait for that, an exit code.

    Raises
    ------
    RetryableError
        If the cluster does not answer for long, or no longer knows the job.
    """
    try:
        job = follow(jobs, job_id, lines.show, say)
    except KeyboardInterrupt as e:
        lines.close()
        say(f"no longer followed; the job goes on\n{how_to_go_on(jobs, job_id)}")
        return EXIT_TERMINATED if e.args == (signal.SIGTERM,) else EXIT_INTERRUPTED
    lines.close()
    return job


def how_to_go_on(jobs: Jobs, job_id: str) -> str:
    """The commands that follow a job again, and stop it."""
    return (
        f"  follow it: locum jobs logs {job_id} --follow --address {jobs.address}\n"
        f"  stop it:   locum jobs stop {job_id} --address {jobs.address}"
    )


def say(text: str) -> None:
    """A word of Locum's own, beside what the job prints."""
    print(f"locum: {text}", file=sys.stderr, flush=True)


def say_ended(job: Job) -> None:
    """How a job ended, and what is to be done where it did not end by itself."""
    say(f"{job.id} {job.status}, exit code {job.exit_code}")
    if job.no_locum_there:
        say(
            "there is no locum on the PATH of the node that runs commands: `ray start` had none, or it is not installed"
        )
    elif job.status == FAILED and job.driver_exit_code is None:
        say(" ".join(job.message.split()) or job.error)
    elif job.status == STOPPED:
        say("it was stopped; the same submit goes on with what is missing")


def _json_object(line: str) -> dict[str, Any] | None:
    """An object that a command answered; log lines of `pipeline.logs` are none."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and not found.keys() >= _LOG_FIELDS else None
