"""What a job on a cluster means to a shell."""

from __future__ import annotations

import pytest

from schemas.submission import ENVIRONMENT_FAILED, FAILED, PENDING, RUNNING, STOPPED, SUCCEEDED, Job


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (Job("a", PENDING), None),
        (Job("a", RUNNING), None),
        (Job("a", SUCCEEDED, driver_exit_code=0), 0),
        *((Job("a", FAILED, driver_exit_code=code), code) for code in (1, 2, 3, 4, 5, 75, 137)),
        (Job("a", FAILED, driver_exit_code=-9), 137),
        (Job("a", FAILED, driver_exit_code=127), 2),
        (Job("a", FAILED, error="JOB_SUPERVISOR_ACTOR_DIED"), 75),
        (Job("a", FAILED, error=ENVIRONMENT_FAILED), 2),
        (Job("a", STOPPED), 143),
    ],
)
def test_exit_codes(job: Job, code: int | None) -> None:
    assert job.exit_code == code and job.active == (code is None)
    assert job.to_json()["exit_code"] == code


def test_how_long_a_job_takes() -> None:
    assert Job("a", RUNNING, started_seconds=10.0).seconds(now=15.0) == 5.0
    assert Job("a", SUCCEEDED, started_seconds=10.0, ended_seconds=12.0).seconds(now=15.0) == 2.0
    assert Job("a", PENDING).seconds(now=15.0) is None
