"""Send a command to a Ray cluster, unless it is under way there already.

The command is the same that would run here, and goes on where it was left, as it would here: so what was stopped, or
failed, is sent again by the same call. What it reads and writes has to be where the cluster's nodes reach it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.attempts import Attach, checked_id, decide, work_id
from cluster.jobs import Jobs
from jobs.cli import release
from jobs.submittable import checked_command, checked_env, checked_folder
from schemas.errors import SettingsError
from schemas.submission import COMMAND_KEY, RELEASE_KEY


@dataclass(frozen=True)
class SubmitOptions:
    """Where a command goes, and what goes with it."""

    address: str | None = None
    """The dashboard's, as http://head:8265; where not given, RAY_API_SERVER_ADDRESS or RAY_ADDRESS say it."""
    folder: str | None = None
    """Its files are sent along; the command runs in a copy of it, and workers find modules there."""
    env: Sequence[str] = field(default_factory=tuple)
    """NAME=VALUE, for the command and its workers."""
    job_id: str | None = None
    """In the place of the one that is made of the command."""


@dataclass(frozen=True)
class Submitted:
    """A job that is under way, by a ``command``. ``attached`` says that it was before."""

    id: str
    attached: bool
    jobs: Jobs
    answers_in_json: bool
    command: str


def submit(
    words: Sequence[str],
    options: SubmitOptions = SubmitOptions(),
    connect: Callable[[str | None], Jobs] | None = None,
) -> Submitted:
    """Send the command of ``words``; where an attempt at it is under way, find that.

    Raises
    ------
    SettingsError
        If it may not be sent, or there is no Ray dashboard at the address.
    RetryableError
        If the cluster does not answer.
    """
    folder = None if options.folder is None else checked_folder(options.folder)
    env = checked_env(options.env)
    work = None if options.job_id is None else checked_id(options.job_id)
    command = checked_command(words, folder)
    jobs = (connect or ray_jobs)(options.address)
    content = "" if folder is None else jobs.upload(folder)
    work = work or work_id(command.words, config=command.config, folder=content)
    there = {job.id: job for job in jobs.all()}
    action = decide(work, ((job.id, job.status) for job in there.values()))
    said = shlex.join(command.words)
    found = there[action.job_id].command if isinstance(action, Attach) else said
    if options.job_id is not None and (not found or work_id(shlex.split(found)) != work_id(command.words)):
        other = found or "a job that Locum did not send"
        raise SettingsError(f"--submission-id {options.job_id}: under that name runs {other}; choose another")
    attached = isinstance(action, Attach) or not jobs.send(
        action.job_id,
        command.entrypoint,
        folder=content,
        env=env,
        metadata={RELEASE_KEY: release(), COMMAND_KEY: said},
    )
    return Submitted(action.job_id, attached, jobs, command.answers_in_json, found)


def ray_jobs(address: str | None) -> Jobs:
    """The jobs of the cluster at an address.

    Raises
    ------
    SettingsError
        If there is something else.
    RetryableError
        If nothing answers.
    """
    from cluster.ray_jobs import RayJobs

    return RayJobs(address)
