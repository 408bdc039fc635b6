"""An S3 server of this process on a free loopback port, and fixtures that point the clients of a test at it.

moto keeps objects in memory, honours If-None-Match and does not check signatures. Import the fixtures into a
conftest: ``from tests.s3_server import s3_bucket, s3_server``.

``LOCUM_TEST_S3=http://KEY:SECRET@HOST:PORT`` has all these tests use that server, and leaves their
buckets there.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

OTHER_SERVER = "LOCUM_TEST_S3"


def environment(endpoint: str) -> dict[str, str]:
    """Variables that make every client of a process speak to ``endpoint``."""
    given = urlsplit(os.environ.get(OTHER_SERVER, ""))
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": given.username or "testing",
        "AWS_SECRET_ACCESS_KEY": given.password or "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def forget_clients() -> None:
    """Drop the file systems that fsspec keeps: they hold the endpoint they were made with."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of the server."""
    if given := os.environ.get(OTHER_SERVER):
        place = urlsplit(given)
        yield f"{place.scheme}://{place.hostname}:{place.port}"
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket (``s3://name``), with the environment set for it."""
    import boto3

    for name, value in environment(s3_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    forget_clients()
    bucket = f"test-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
    try:
        yield f"s3://{bucket}"
    finally:
        forget_clients()
