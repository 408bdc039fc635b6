"""What is known of one job on a cluster: the command, how it stands, and how it ended. Knows nothing of Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.errors import EXIT_OK, EXIT_RETRY, EXIT_SETTINGS, EXIT_TERMINATED

PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED = "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"
ACTIVE = frozenset({PENDING, RUNNING})

RELEASE_KEY, COMMAND_KEY = "locum", "locum_command"
"""In a job's metadata: Locum's release, and the words of the command. Who has none was not sent by Locum."""
ENVIRONMENT_FAILED = "RUNTIME_ENV_SETUP_FAILURE"
_NOT_FOUND = (126, 127)
"""What a shell says of a program that is not there, or cannot be run."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the cluster tells it. ``driver_exit_code`` is None where the command did not end by itself."""

    id: str
    status: str
    command: str = ""
    """The words after ``locum submit --``; empty for a job that Locum did not send."""
    release: str = ""
    """Locum's, where the job was sent from; empty for a job that Locum did not send."""
    started_seconds: float | None = None
    ended_seconds: float | None = None
    driver_exit_code: int | None = None
    error: str = ""
    """Ray's name of what went wrong."""
    message: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE

    @property
    def exit_code(self) -> int | None:
        """What a shell is told; None while it is active.

        The command's own, where it ended by itself. Where it did not: 143 for a job that was stopped, 2 for one whose
        environment cannot be made or whose nodes have no Locum, 75 for one that the cluster lost or could not start.
        """
        code = self.driver_exit_code
        if self.active:
            return None
        if self.status == SUCCEEDED:
            return EXIT_OK
        if self.status == STOPPED:
            return EXIT_TERMINATED
        if code is None:
            return EXIT_SETTINGS if self.error == ENVIRONMENT_FAILED else EXIT_RETRY
        if self.no_locum_there:
            return EXIT_SETTINGS
        return code if code >= 0 else 128 - code

    @property
    def no_locum_there(self) -> bool:
        """Whether the shell of the node that was to run the command found no ``locum``."""
        return self.status == FAILED and self.driver_exit_code in _NOT_FOUND

    def seconds(self, now: float) -> float | None:
        """How long it took, or has taken until ``now`` (seconds since 1970); None where it has not begun."""
        if self.started_seconds is None:
            return None
        end = now if self.active or self.ended_seconds is None else self.ended_seconds
        return max(0.0, end - self.started_seconds)

    def to_json(self) -> dict[str, Any]:
        """All of it, and the exit code."""
        return {
            "id": self.id,
            "status": self.status,
            "exit_code": self.exit_code,
            "command": self.command,
            "locum": self.release,
            "started_seconds": self.started_seconds,
            "ended_seconds": self.ended_seconds,
            "error": self.error,
            "message": self.message,
        }
