"""What a fault of the storage means: somebody was first, wait and try again, or change something.

s3fs turns an S3 error into an OSError whose errno says little (412 is EINVAL, as is a malformed request) and
whose text may hold any digits, so what counts is the error of botocore that it keeps as the cause.

Over HTTP it is aiohttp's error with its status; fsspec itself says only where nothing is there.

It does not know what was being stored.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pipeline.uris import scrubbed
from schemas.errors import LocumError, RetryableError, SettingsError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_HTTP_DENIED, _HTTP_PASSING = {401, 403, 407}, {408, 425, 429}
_S3_DENIED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed", "400"}
"""An answer without a body (to HEAD) has no code but its status: a token that has expired is 400 then, as is a wrong
region."""
_MISNAMED = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}


def transport_errors(protocols: tuple[str, ...]) -> tuple[type[Exception], ...]:
    """Types that a client of these protocols raises: OSError, and for S3 and HTTP also those of their clients."""
    types: tuple[type[Exception], ...] = (OSError,)
    if "s3" in protocols:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        types = (*types, BotoCoreError)
    if "http" in protocols:
        from aiohttp import ClientError

        types = (*types, ClientError)
    return types


def protocols_of(fs: AbstractFileSystem) -> tuple[str, ...]:
    """What a file system is called by in URLs."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def cause_of(error: Exception) -> Exception:
    """What fsspec's HTTP file system met where it says that a file is not there: it says so whatever was answered, or
    where nothing was."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    over_http = type(cause).__module__.startswith("aiohttp")
    return cause if over_http and http_status(cause) not in (404, 410) else error


def http_status(error: BaseException) -> int:
    """Status of the answer that an HTTP client took for an error; 0 where the error is of another kind."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else 0


def s3_status(error: BaseException) -> tuple[str, int]:
    """Error code and HTTP status that an S3 server gave; ``("", 0)`` where the error is of another kind."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return "", 0
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_taken(error: BaseException) -> bool:
    """Whether a file that had to be new is there already: somebody's, or ours whose answer was lost."""
    code, status = s3_status(error)
    return isinstance(error, FileExistsError) or status == 412 or code in ("PreconditionFailed", "412")


def lacks_conditional_put(error: BaseException) -> bool:
    """Whether the server does not know If-None-Match on PUT."""
    code, status = s3_status(error)
    return status == 501 or code in ("NotImplemented", "501")


def remedy(url: str, error: Exception) -> LocumError:
    """The error of ours whose type says what to do about ``error``."""
    number, status = getattr(error, "errno", None), http_status(error)
    text = f"{url}: {type(error).__name__}: {scrubbed(str(error))}"
    if number in _FULL:
        return RetryableError(f"{text}: no room left, or a quota is used up; make room and run again")
    denied = isinstance(error, PermissionError) or number in _DENIED or status in _HTTP_DENIED
    denied = denied or s3_status(error)[0] in _S3_DENIED
    if denied or "Credentials" in type(error).__name__:
        return SettingsError(f"{text}: access is denied; check credentials and permissions")
    if number in _MISNAMED or isinstance(error, FileNotFoundError):
        return SettingsError(f"{text}: no such place; check the path or bucket")
    if 400 <= status < 500 and status not in _HTTP_PASSING:
        return SettingsError(f"{text}: the server refuses it; check the address")
    return RetryableError(f"{text}; run again to continue")


def is_final(error: Exception) -> bool:
    """Whether a second attempt cannot help."""
    error = cause_of(error)
    missing_part = isinstance(error, FileNotFoundError | FileExistsError)
    full = getattr(error, "errno", None) in _FULL
    return missing_part or full or is_taken(error) or isinstance(remedy("", error), SettingsError)
