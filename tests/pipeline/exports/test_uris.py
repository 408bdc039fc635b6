"""URIs as they may be shown."""

from __future__ import annotations

import pytest

from pipeline.exports.uris import Prefix, parse_prefix, rewritten
from schemas.errors import SettingsError


def test_the_longest_prefix_that_fits_counts() -> None:
    prefixes = [Prefix("s3://b/", "https://h/"), Prefix("s3://b/new/", "/data/local-files/?d=")]
    assert rewritten("s3://b/x y#1.mp4", prefixes) == ("https://h/x%20y%231.mp4", prefixes[0])
    assert rewritten("s3://b/new/é.mp4", prefixes) == ("/data/local-files/?d=%C3%A9.mp4", prefixes[1])
    assert rewritten("/x y.mp4", prefixes) == ("/x y.mp4", None)
    assert rewritten("/v/x y.mp4", [Prefix("/v/", "/mnt/")])[0] == "/mnt/x y.mp4"
    assert rewritten("http://a/x%20y.mp4", [Prefix("http://a/", "https://b/")])[0] == "https://b/x%20y.mp4"


def test_a_prefix_in_words() -> None:
    assert parse_prefix("/v/=https://h/?a=b") == Prefix("/v/", "https://h/?a=b")
    for wrong in ("/v/", "=x", ""):
        with pytest.raises(SettingsError, match="wants OLD=NEW"):
            parse_prefix(wrong)
