"""What Locum asks of a cluster about jobs. `cluster.ray_jobs.RayJobs` answers; tests have answers of their own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Protocol

from schemas.submission import Job


class Jobs(Protocol):
    """The jobs of one cluster. All methods raise RetryableError where the cluster does not answer."""

    @property
    def address(self) -> str:
        """Where it is, as it may be shown."""
        ...

    def all(self) -> list[Job]:
        """Every job that the cluster remembers."""
        ...

    def one(self, job_id: str) -> Job | None:
        """A job; None where the cluster does not know it."""
        ...

    def upload(self, folder: str) -> str:
        """Send a folder's files, unless they are there; the name that their content has on the cluster."""
        ...

    def send(
        self,
        job_id: str,
        entrypoint: str,
        *,
        folder: str = "",
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Have a shell of the cluster run ``entrypoint``; False where a job of this id is there already."""
        ...

    def stop(self, job_id: str) -> None:
        """Ask a job to end."""
        ...

    def log(self, job_id: str) -> str:
        """What it has printed until now."""
        ...

    def tail(self, job_id: str) -> Generator[str, None, None]:
        """What it prints, from the first letter on, as it comes. Ends with the job, or after a long silence."""
        ...
