"""A cluster's jobs by Ray's Jobs API, over HTTP: the one place that knows Ray's client and what its errors mean.

It needs no Ray of its own and joins no cluster. It does not know what a command is, nor when to send one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobSubmissionClient

from cluster.session import TOKEN_HINT
from pipeline.uris import scrubbed, without_secrets
from schemas.errors import RetryableError, SettingsError
from schemas.submission import COMMAND_KEY, RELEASE_KEY, Job

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_HEADERS_VARIABLE = "RAY_JOB_HEADERS"
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 120.0
_SILENCE_SECONDS = 60.0
_TALKS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that tell each package and each closed connection."""
_STATUS_CODE = re.compile(r"status code (\d+)")


class RayJobs:
    """Jobs of the cluster whose dashboard is at ``address``.

    Raises
    ------
    SettingsError
        If what answers there is no Ray dashboard, or refuses to talk to us.
    RetryableError
        If nothing answers.
    """

    def __init__(self, address: str | None = None) -> None:
        for name in _TALKS:
            logging.getLogger(name).setLevel(logging.WARNING)
        where = dashboard_address(address, os.environ)
        self._address = without_secrets(where)
        with self._asking(), _read_by_ray(where):
            try:
                self._client = _client(where)
            except (
                KeyError,
                ValueError,
                RuntimeError,
            ) as e:  # of Ray's check of what is there, and of its version
                raise SettingsError(f"what answers at {self._address} is no Ray dashboard: {e!r}") from e
        self._address = without_secrets(self._client.get_address())

    @property
    def address(self) -> str:
        """See `cluster.jobs.Jobs`; so too all else."""
        return self._address

    def all(self) -> list[Job]:
        with self._asking():
            return [_job(details) for details in self._client.list_jobs() if details.submission_id]

    def one(self, job_id: str) -> Job | None:
        with self._asking():
            try:
                return _job(self._client.get_job_info(job_id))
            except RuntimeError as e:
                if _code(e) == 404:
                    return None
                raise

    def upload(self, folder: str) -> str:
        """Raises SettingsError where it cannot be read, or is too large for Ray."""
        environment = {"working_dir": folder}
        with self._asking():
            try:
                # the client's own step of submit_job, so that the id can be made of what the folder holds
                self._client._upload_working_dir_if_needed(environment)
            except (ValueError, PermissionError, FileNotFoundError) as e:
                raise SettingsError(f"--working-dir {folder}: {e}") from e
        return environment["working_dir"]

    def send(
        self,
        job_id: str,
        entrypoint: str,
        *,
        folder: str = "",
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        environment: dict[str, Any] = {"env_vars": dict(env or {})}
        if folder:
            environment["working_dir"] = folder
        with self._asking():
            try:
                # No entrypoint_num_cpus: the command itself waits for workers, and a head may have no cores to give.
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=environment,
                    metadata=dict(metadata or {}),
                )
            except RuntimeError as e:
                if "already exists" in str(e):
                    return False
                raise
        return True

    def stop(self, job_id: str) -> None:
        with self._asking():
            self._client.stop_job(job_id)

    def log(self, job_id: str) -> str:
        with self._asking():
            return str(self._client.get_job_logs(job_id))

    def tail(self, job_id: str) -> Generator[str, None, None]:
        """A connection that a router forgot looks like silence, so after a minute of it this ends too."""
        pieces = self._client.tail_job_logs(job_id)

        async def next_piece() -> str | None:
            return await asyncio.wait_for(anext(pieces, None), _SILENCE_SECONDS)

        with self._asking(), asyncio.Runner() as runner:
            while True:
                try:
                    piece = runner.run(next_piece())
                except TimeoutError:
                    return
                except RuntimeError as e:
                    raise ConnectionError(str(e)) from e
                if piece is None:
                    return
                yield piece

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What Ray's client raises, as ours."""
        try:
            yield
        except AuthenticationError as e:
            raise SettingsError(f"{self._address}: {' '.join(str(e).split())} {TOKEN_HINT}") from e
        except (OSError, aiohttp.ClientError) as e:  # those of requests are OSErrors
            code = getattr(getattr(e, "response", None), "status_code", None)
            if code is not None and code < 500:
                raise SettingsError(
                    f"what answers at {self._address} is no Ray dashboard: {scrubbed(str(e))}"
                ) from e
            raise RetryableError(
                f"no Ray dashboard answers at {self._address} ({scrubbed(_cause(e))}): is it the right address "
                "(--address), and is the cluster up?"
            ) from e
        except RayError as e:  # where the address is not of a dashboard, Ray asks the cluster for that
            raise RetryableError(
                f"no Ray cluster answers at {self._address}: {' '.join(str(e).split())}"
            ) from e
        except RuntimeError as e:
            code, text = _code(e), _last_line(str(e))
            if code is not None and code >= 500:
                raise RetryableError(f"the Ray dashboard at {self._address}: {text}") from e
            raise SettingsError(f"the Ray dashboard at {self._address}: {text}") from e


def dashboard_address(given: str | None, environ: Mapping[str, str]) -> str:
    """What was given, else where Ray's own command line looks.

    Raises
    ------
    SettingsError
        If what was given is not the address of a dashboard.
    """
    if given is not None:
        if not given.startswith(("http://", "https://")):
            raise SettingsError(f"--address {given!r}: the dashboard's is wanted, such as {DEFAULT_ADDRESS}")
        return given
    return next((environ[name] for name in _ADDRESS_VARIABLES if environ.get(name)), DEFAULT_ADDRESS)


@contextmanager
def _read_by_ray(address: str) -> Iterator[None]:
    """Ray's client lets the environment win over an address that it is given."""
    before = os.environ.get(_ADDRESS_VARIABLES[0])
    os.environ[_ADDRESS_VARIABLES[0]] = address
    try:
        yield
    finally:
        del os.environ[_ADDRESS_VARIABLES[0]]
        if before is not None:
            os.environ[_ADDRESS_VARIABLES[0]] = before


def _client(address: str) -> Any:
    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Ray's client waits for ever, where it is not told otherwise."""

        def _do_request(self, *args: Any, **kwargs: Any) -> Any:
            return super()._do_request(*args, **{"timeout": (_CONNECT_SECONDS, _ANSWER_SECONDS), **kwargs})

    return Client(address, headers=_headers())


def _headers() -> dict[str, Any] | None:
    """Of every request, for clusters behind a gateway; as Ray's own command line."""
    text = os.environ.get(_HEADERS_VARIABLE)
    if not text:
        return None
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        raise SettingsError(
            f'{_HEADERS_VARIABLE} must be a JSON object, such as {{"Authorization": "Bearer ..."}}'
        )
    return headers


def _job(details: Any) -> Job:
    metadata = details.metadata or {}
    return Job(
        id=details.submission_id or "",
        status=str(details.status),
        command=metadata.get(COMMAND_KEY, ""),
        release=metadata.get(RELEASE_KEY, ""),
        started_seconds=None if details.start_time is None else details.start_time / 1000,
        ended_seconds=None if not details.end_time else details.end_time / 1000,
        driver_exit_code=details.driver_exit_code,
        error=str(details.error_type or ""),
        message=details.message or "",
    )


def _code(error: Exception) -> int | None:
    match = _STATUS_CODE.search(str(error))
    return int(match[1]) if match else None


def _last_line(text: str) -> str:
    """Of a traceback that a server sent as its answer, what was raised."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removesuffix(".") if lines else ""


def _cause(error: BaseException) -> str:
    """The innermost error, which says what is the matter; libraries wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
