"""`locum submit` as the command line calls it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json
from schemas.errors import EXIT_OK


def submit(
    *command: str,
    address: str | None = None,
    working_dir: str | None = None,
    env: Annotated[list[str] | None, Parameter(negative=())] = None,
    submission_id: str | None = None,
    detach: Flag = False,
    as_json: Json = False,
) -> int:
    """Run a command on a Ray cluster and follow it: locum submit [flags] -- teach s3://... -o s3://...

    Ends with the command's own exit code. A command that is under way there is followed, and not sent again; one that
    was stopped or failed is sent again, and goes on where it was.

    Parameters
    ----------
    command
        The command and its flags, after --.
    address
        The cluster's dashboard, such as http://head:8265. Where not given: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS,
        else http://127.0.0.1:8265.
    working_dir
        Folder whose files are sent along (less those that its .gitignore names): a teacher's code, a --config. The
        command runs in a copy of it, and workers find its modules.
    env
        NAME=VALUE for the command and its workers; may be given several times. No secrets: Ray shows them.
    submission_id
        Name of the job, in the place of the one that is made of the command.
    detach
        Print the job's id, and do not follow it.
    as_json
        Print one JSON object: the job, and as "answer" what a command with --json said.
    """
    from jobs.commands.console import emit
    from jobs.commands.following import LogLines, follow_on_screen, how_to_go_on, say, say_ended
    from jobs.submit import SubmitOptions
    from jobs.submit import submit as run_submit

    sent = run_submit(command, SubmitOptions(address, working_dir, tuple(env or ()), submission_id))
    how = "is under way there already" if sent.attached else "was submitted"
    say(f"{sent.id} {how}, at {sent.jobs.address}\n{how_to_go_on(sent.jobs, sent.id)}")
    if sent.attached and env:
        say("it has the variables that it was submitted with; those of this --env do not count")
    if sent.attached and sent.answers_in_json and "--json" not in sent.command.split():
        say("it was submitted without --json: its answer is in its log, as text")
    body = {"id": sent.id, "address": sent.jobs.address, "attached": sent.attached}
    if detach:
        emit(body, as_json=as_json, text=sent.id)
        return EXIT_OK
    lines = LogLines(answers=sent.answers_in_json, as_json=as_json)
    job = follow_on_screen(sent.jobs, sent.id, lines)
    if isinstance(job, int):
        return job
    say_ended(job)
    if as_json:
        emit({**job.to_json(), **body, "answer": lines.answer}, as_json=True, text="")
    return job.exit_code or EXIT_OK
