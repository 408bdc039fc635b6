"""What is written down of URLs."""

from __future__ import annotations

import pytest

from pipeline.uris import scrubbed, without_secrets


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


def test_what_is_no_url_stays() -> None:
    assert without_secrets(None) is None
    assert without_secrets("/local/w?.pt") == "/local/w?.pt"


def test_texts_lose_the_secrets_of_their_urls() -> None:
    text = "cannot open 'https://u:pw@h:8/w.mp4?X-Amz-Signature=abc#f' (403): see s3://b/x?.mp4, /a?b"
    assert scrubbed(text) == "cannot open 'https://h:8/w.mp4' (403): see s3://b/x?.mp4, /a?b"
