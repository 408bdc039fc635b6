"""A cluster's jobs without a cluster: `cluster.jobs.Jobs` over what a test says of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from schemas.errors import RetryableError
from schemas.submission import COMMAND_KEY, RELEASE_KEY, RUNNING, STOPPED, Job


@dataclass
class FakeJobs:
    """``connections`` are what `tail` meets, one after another: texts, and where one breaks an exception at its end."""

    there: dict[str, Job] = field(default_factory=dict)
    connections: list[list[str | Exception]] = field(default_factory=list)
    address: str = "http://cluster:8265"
    sent: list[dict[str, object]] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    printed: str = ""
    ends_as: Job | None = None
    """What a job is once the last connection has ended."""
    away: int = 0
    """So many questions are not answered."""
    hidden: frozenset[str] = frozenset()
    """Ids that are taken, but are not listed yet."""

    def all(self) -> list[Job]:
        self._asked()
        return [job for job in self.there.values() if job.id not in self.hidden]

    def one(self, job_id: str) -> Job | None:
        self._asked()
        if self.ends_as is not None and not self.connections:
            return replace(self.ends_as, id=job_id)
        return self.there.get(job_id)

    def upload(self, folder: str) -> str:
        self.uploaded.append(folder)
        return f"gcs://{folder}.zip"

    def send(
        self,
        job_id: str,
        entrypoint: str,
        *,
        folder: str = "",
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        if job_id in self.there:
            return False
        self.sent.append({"id": job_id, "entrypoint": entrypoint, "folder": folder, "env": dict(env or {})})
        given = metadata or {}
        self.there[job_id] = Job(
            job_id, RUNNING, command=given.get(COMMAND_KEY, ""), release=given.get(RELEASE_KEY, "")
        )
        return True

    def stop(self, job_id: str) -> None:
        self.there[job_id] = replace(self.there[job_id], status=STOPPED)

    def log(self, job_id: str) -> str:
        self._asked()
        return self.printed

    def tail(self, job_id: str) -> Generator[str, None, None]:
        for piece in self.connections.pop(0) if self.connections else ():
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _asked(self) -> None:
        if self.away > 0:
            self.away -= 1
            raise RetryableError("connection refused")
