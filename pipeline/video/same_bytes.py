"""Are these still the bytes that were indexed? A file may change between the index and the decoder.

Compares the file's identity by content, so a file that was only touched or moved passes. It costs one reading of a
small file (which is about to be read anyway), and one question to an object store.
"""

from __future__ import annotations

import fsspec

from pipeline.identity import file_id
from pipeline.manifest import token_of
from schemas.errors import VideoError

CHANGED = "ChangedFile"
CHANGED_WHILE_READ = "ChangedWhileRead"


def require_bytes(uri: str, expected_file_id: str) -> str:
    """Check the content of ``uri``; returns its version token, for `require_unchanged`.

    Raises
    ------
    VideoError
        Not permanent, cause 'ChangedFile' where the file holds other bytes, the storage's own word where it could
        not be read.
    """
    token = _token(uri, "open")
    try:
        same = any(file_id(uri, method)[0] == expected_file_id for method in ("auto", "full"))
    except Exception as error:  # whatever a storage library raises is a fault of the storage
        raise _fault(error, "open") from error
    if not same:
        message = f"{uri} holds other bytes than were indexed; run the same command again to index it anew"
        raise VideoError("open", message, permanent=False, cause=CHANGED)
    return token


def require_unchanged(uri: str, token: str) -> None:
    """Check that ``uri`` is still the version that `require_bytes` saw.

    Raises
    ------
    VideoError
        Not permanent, cause 'ChangedWhileRead': what was read of it may be of both versions.
    """
    if _token(uri, "decode") != token:
        message = f"{uri} was changed while it was read"
        raise VideoError("decode", message, permanent=False, cause=CHANGED_WHILE_READ)


def _token(uri: str, stage: str) -> str:
    try:
        fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        return token_of(fs.info(path))
    except Exception as error:  # see above
        raise _fault(error, stage) from error


def _fault(error: Exception, stage: str) -> VideoError:
    cause = type(error).__name__
    return VideoError(stage, f"{cause}: {error}", permanent=False, cause=cause)
