"""Stores of a test: on a local disk, and for tests of both kinds of storage also on an S3 server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.s3_server import s3_bucket, s3_server

__all__ = ["place", "s3_bucket", "s3_server"]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> str:
    """A folder or bucket to put files in: each test that asks for it runs on both."""
    name = "tmp_path" if request.param == "local" else "s3_bucket"
    return str(request.getfixturevalue(name))
