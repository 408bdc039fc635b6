"""Ray's Jobs API as Locum asks it: where it is looked for, and what its absence means. See also test_submit_cluster."""

from __future__ import annotations

import os

import pytest

from cluster.ray_jobs import DEFAULT_ADDRESS, RayJobs, dashboard_address
from schemas.errors import RetryableError, SettingsError
from tests.http_server import answering
from tests.ray_head import free_ports

VARIABLES = {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:2"}


@pytest.fixture(autouse=True)
def no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


def test_the_address_is_what_was_given_else_what_rays_own_command_line_uses() -> None:
    assert dashboard_address("http://c:3", VARIABLES) == "http://c:3"
    assert dashboard_address(None, VARIABLES) == "http://a:1"
    assert dashboard_address(None, {"RAY_ADDRESS": "http://b:2"}) == "http://b:2"
    assert dashboard_address(None, {"RAY_ADDRESS": ""}) == DEFAULT_ADDRESS
    with pytest.raises(SettingsError, match="--address 'head:8265'"):
        dashboard_address("head:8265", {})


def test_the_address_that_was_given_is_asked_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://192.0.2.1:8265")
    with answering(404) as (url, asked), pytest.raises(SettingsError, match="no Ray dashboard"):
        RayJobs(url)
    assert asked and os.environ["RAY_API_SERVER_ADDRESS"] == "http://192.0.2.1:8265"


def test_nothing_there_can_be_tried_again() -> None:
    with answering(200) as (url, _):
        pass
    with pytest.raises(RetryableError, match=f"no Ray dashboard answers at {url} .*refused"):
        RayJobs(url)


@pytest.mark.slow
def test_a_cluster_that_is_named_by_its_own_address_may_be_away_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tries for 40 s."""
    (port,) = free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(RetryableError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        RayJobs()


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, SettingsError), (404, SettingsError), (403, SettingsError), (503, RetryableError)],
)
def test_what_is_no_dashboard_is_told_from_one_that_is_away(status: int, error: type[Exception]) -> None:
    with answering(status) as (url, _), pytest.raises(error) as raised:
        RayJobs(url)
    assert url in str(raised.value) and "Traceback" not in str(raised.value)


def test_headers_that_are_no_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", "Authorization: x")
    with pytest.raises(SettingsError, match="RAY_JOB_HEADERS must be a JSON object"):
        RayJobs(DEFAULT_ADDRESS)


def test_a_password_in_the_address_is_not_shown() -> None:
    with answering(200) as (url, _):
        pass
    with pytest.raises(RetryableError) as raised:
        RayJobs(url.replace("://", "://me:hush@"))
    assert "hush" not in str(raised.value) and url in str(raised.value)
