"""Following a job: its log as it comes, once each, through lost connections, until it has ended.

Knows neither Ray nor terminals. A log is sent from its beginning with each connection; what was shown is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from cluster.jobs import Jobs
from schemas.errors import LocumError, RetryableError, SettingsError
from schemas.submission import PENDING, Job

PATIENCE_SECONDS = 300.0
STOP_SECONDS = 60.0
"""Ray gives a job three to end, once it has begun."""
_LONGEST_PAUSE_SECONDS = 30.0
_STOP_POLL_SECONDS = 0.5


class Unseen:
    """Of a text that comes again from its beginning, what has not come before."""

    def __init__(self) -> None:
        self._seen = self._place = 0

    def again(self) -> None:
        """The text begins anew."""
        self._place = 0

    def take(self, text: str) -> str:
        """What is new in the next piece."""
        new = text[max(0, self._seen - self._place) :]
        self._place += len(text)
        self._seen = max(self._seen, self._place)
        return new


def follow(
    jobs: Jobs,
    job_id: str,
    show: Callable[[str], None],
    say: Callable[[str], None],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """The job once it has ended. ``show`` is given its log, in pieces of any length; ``say`` what keeps it.

    Raises
    ------
    RetryableError
        If the cluster does not answer for ``patience_seconds``, or no longer knows the job.
    """
    log, tries, answered, said = Unseen(), 0, clock(), ""
    while True:
        log.again()
        lost: RetryableError | None = None
        try:
            with closing(jobs.tail(job_id)) as pieces:
                for piece in pieces:
                    show(log.take(piece))
                    tries, answered, said = 0, clock(), ""
            tries = 0
        except RetryableError as e:
            lost = e
        try:
            job = jobs.one(job_id)
        except SettingsError as e:  # a gateway's token has run out, say
            raise RetryableError(f"{e}; the job {job_id} may go on, the same command follows it again") from e
        except RetryableError as e:
            if clock() - answered >= patience_seconds:
                raise RetryableError(
                    f"{jobs.address} has not answered for {patience_seconds:.0f} s: {e}; the job {job_id} may go on, "
                    "the same command follows it again"
                ) from e
            word = f"{jobs.address} does not answer, it is asked again: {e}"
        else:
            answered = clock()
            if job is None:
                raise RetryableError(
                    f"{jobs.address} no longer knows the job {job_id}: the cluster was started anew; "
                    "the same command sends it again"
                )
            if not job.active:
                _show_rest(jobs, job_id, log, show, say)
                return job
            word = job.message if job.status == PENDING else str(lost or "")
        if word and word != said:
            say(word)
            said = word
        sleep(min(2.0**tries / 2, _LONGEST_PAUSE_SECONDS))
        tries += 1


def stop(
    jobs: Jobs,
    job_id: str,
    *,
    patience_seconds: float = STOP_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """Ask a job to end, and wait until it has; the job as it then is.

    Raises
    ------
    RetryableError
        If the cluster does not answer, no longer knows the job, or has not ended it in ``patience_seconds``.
    """
    jobs.stop(job_id)
    deadline = clock() + patience_seconds
    while True:
        job = jobs.one(job_id)
        if job is None:
            raise RetryableError(f"{jobs.address} no longer knows the job {job_id}")
        if not job.active:
            return job
        if clock() >= deadline:
            raise RetryableError(
                f"the job {job_id} is {job.status} {patience_seconds:.0f} s after it was to stop: {job.message} Ray "
                "stops a job once it has begun, and gives up one that does not begin"
            )
        sleep(_STOP_POLL_SECONDS)


def _show_rest(
    jobs: Jobs, job_id: str, log: Unseen, show: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """What came between the last piece and the end. It may be gone, with the node that ran the command."""
    log.again()
    try:
        show(log.take(jobs.log(job_id)))
    except LocumError as e:
        say(f"the end of the log cannot be read: {e}")
