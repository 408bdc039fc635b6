"""What a fault of the storage means: somebody was first, wait and try again, or change something.

s3fs turns an S3 error into an OSError whose errno says little (412 is EINVAL, as is a malformed request) and
whose text may hold any digits, so what counts is the error of botocore that it keeps as the cause.

It does not know what was being stored.
"""

from __future__ import annotations

import errno

from schemas.errors import LocumError, RetryableError, SettingsError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISNAMED = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}


def transport_errors(protocols: tuple[str, ...]) -> tuple[type[Exception], ...]:
    """Types that a client of these protocols raises: OSError, and for S3 also botocore's own."""
    if "s3" not in protocols:
        return (OSError,)
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    return (OSError, BotoCoreError)


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
    number = getattr(error, "errno", None)
    text = f"{url}: {type(error).__name__}: {error}"
    if number in _FULL:
        return RetryableError(f"{text}: no room left, or a quota is used up; make room and run again")
    if isinstance(error, PermissionError) or number in _DENIED or "Credentials" in type(error).__name__:
        return SettingsError(f"{text}: access is denied; check credentials and permissions")
    if number in _MISNAMED or isinstance(error, FileNotFoundError):
        return SettingsError(f"{text}: no such place; check the path or bucket")
    return RetryableError(f"{text}; run again to continue")


def is_final(error: Exception) -> bool:
    """Whether a second attempt cannot help."""
    missing_part = isinstance(error, FileNotFoundError | FileExistsError)
    full = getattr(error, "errno", None) in _FULL
    return missing_part or full or is_taken(error) or isinstance(remedy("", error), SettingsError)
