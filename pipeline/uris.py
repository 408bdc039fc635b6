"""URLs as they may be written down: without users, passwords and signatures. Pure."""

from __future__ import annotations

import re
from typing import overload

_WHOLE_KEYS = ("s3://", "s3a://", "gs://", "gcs://")
"""Where ``?`` and ``#`` are letters of a file's name."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


@overload
def without_secrets(uri: str) -> str: ...
@overload
def without_secrets(uri: None) -> None: ...
def without_secrets(uri: str | None) -> str | None:
    """A URI less user, password and query (signatures). In names of S3 and of Google's storage nothing is a query."""
    if uri is None:
        return None
    uri = re.sub(r"://[^/?#]*@", "://", uri)
    if "://" not in uri or uri.startswith(_WHOLE_KEYS):
        return uri
    return re.split(r"[?#]", uri, maxsplit=1)[0]


def scrubbed(text: str) -> str:
    """A text, as an error's, less the secrets of all URLs in it."""
    return _URL.sub(lambda found: without_secrets(found[0]), text)
