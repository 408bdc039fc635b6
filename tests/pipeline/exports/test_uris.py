"""URIs as they may be shown."""

from __future__ import annotations

import pytest

from pipeline.exports.uris import Prefix, parse_prefix, rewritten, without_secrets
from schemas.errors import SettingsError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/videos/a?b#c @home.mp4", "/videos/a?b#c @home.mp4"),
        ("https://user:p@ss@host/a@b.mp4?X-Amz-Signature=1#t", "https://host/a@b.mp4"),
        ("s3://key:secret@bucket/take #1?.mp4", "s3://bucket/take #1?.mp4"),
        ("gs://bucket/a@b.mp4", "gs://bucket/a@b.mp4"),
        ("abfs://c/a.mp4?sig=1", "abfs://c/a.mp4"),
        ("simplecache::https://u:p@h/a.mp4?sig=1", "simplecache::https://h/a.mp4"),
    ],
)
def test_no_secret_is_shown(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["https://u:p@h/a.mp4?s=1#2", "/a?b.mp4", "abfs://u@c/a?b"])
def test_stores_hide_the_same(uri: str) -> None:
    from jobs.teach import without_secrets as of_stores

    assert of_stores(uri) == without_secrets(uri)


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
