"""Files that appear whole or not at all, on a local disk or an object store.

Everything a store writes goes through `StoreFiles`. On a local file system a file is written under ``tmp/``,
synced, and linked into place, so the first writer wins and no reader sees half a file. On an object store it
is one PUT, conditional (If-None-Match: *) where the first writer must win. A server that ignores the
condition makes the last writer win, which is also one whole file.

It does not know what the files mean.
"""

from __future__ import annotations

import errno
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import RetryableError, SettingsError

T = TypeVar("T")

TMP = "tmp"
_SINGLE_PUT_BYTES = 4 * 2**30
_ATTEMPTS = 4
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# Faults of the file system that no second attempt mends.
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR}


class StoreFiles:
    """The files below one folder. Paths are relative to it, with forward slashes.

    Parameters
    ----------
    url
        A local path or any fsspec URL (``s3://bucket/prefix``, ``memory://…``). Credentials, endpoints and
        client options come from the environment and fsspec's own configuration files.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if "://" in url else os.path.abspath(url)
        try:
            self.fs, self.path = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as e:
            raise SettingsError(f"cannot use {url!r} as a place for files: {e}") from e
        self.path = self.path.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    def at(self, rel: str) -> str:
        return f"{self.path}/{rel}" if rel else self.path

    def exists(self, rel: str) -> bool:
        return bool(self._retry(lambda: self.fs.exists(self.at(rel))))

    def read(self, rel: str) -> bytes:
        """Bytes of a file. Raises FileNotFoundError where there is none."""
        return bytes(self._retry(lambda: self.fs.cat_file(self.at(rel))))

    def open(self, rel: str) -> Any:
        """A seekable binary file for ranged reads."""
        return self._retry(lambda: self.fs.open(self.at(rel), "rb"))

    def size(self, rel: str) -> int:
        return int(self._retry(lambda: self.fs.size(self.at(rel))))

    def list(self, rel: str) -> list[str]:
        """Names (not paths) of the files in a folder, sorted; empty where there is no such folder."""
        return sorted(self.sizes(rel))

    def sizes(self, rel: str) -> dict[str, int]:
        """Size in bytes of each file in a folder, by name; empty where there is no such folder."""

        def listed() -> dict[str, int]:
            try:
                found = self.fs.ls(self.at(rel), detail=True)
            except FileNotFoundError:
                return {}
            return {i["name"].rstrip("/").rsplit("/", 1)[-1]: int(i["size"] or 0) for i in found if i["type"] == "file"}

        return self._retry(listed)

    def put_new(self, rel: str, data: bytes) -> bool:
        """Write a file that must not exist yet. True if this call wrote it, False if one was there already."""
        if self.is_local:
            return self._put_local(rel, data, replace=False)
        return self._retry(lambda: self._put_object_new(rel, data))

    def put_over(self, rel: str, data: bytes) -> None:
        """Write a file, replacing the one that may be there, in one step."""
        if self.is_local:
            self._put_local(rel, data, replace=True)
        else:
            self._retry(lambda: self._put_object(rel, data, "overwrite"))

    def delete(self, rel: str) -> None:
        """Remove a file; it may be gone already."""

        def remove() -> None:
            try:
                self.fs.rm_file(self.at(rel))
            except FileNotFoundError:
                pass

        self._retry(remove)

    def sweep_tmp(self, older_than_seconds: float) -> int:
        """Delete what killed writers left under ``tmp/``; number of files deleted. Only local stores have any."""
        if not self.is_local:
            return 0
        swept = 0
        for name in self.list(TMP):
            path = self.at(f"{TMP}/{name}")
            try:
                if time.time() - os.stat(path).st_mtime >= older_than_seconds:
                    os.unlink(path)
                    swept += 1
            except FileNotFoundError:
                continue
        return swept

    def _put_local(self, rel: str, data: bytes, *, replace: bool) -> bool:
        final, tmp = self.at(rel), self.at(f"{TMP}/{uuid.uuid4().hex}")
        folder = os.path.dirname(final)
        os.makedirs(folder, exist_ok=True)
        os.makedirs(os.path.dirname(tmp), exist_ok=True)
        try:
            with open(tmp, "xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            if replace:
                os.replace(tmp, final)
                wrote = True
            else:
                wrote = _link_new(tmp, final)
        finally:
            try:
                os.unlink(tmp)
            except FileNotFoundError:
                pass
        _sync_folder(folder)
        return wrote

    def _put_object_new(self, rel: str, data: bytes) -> bool:
        try:
            self._put_object(rel, data, "create")
        except FileExistsError:
            return False
        except OSError as e:
            if _is_precondition_failed(e):
                return False
            if "NotImplemented" in str(e):  # a server without conditional PUT: the last writer wins
                if self.fs.exists(self.at(rel)):
                    return False
                self._put_object(rel, data, "overwrite")
                return True
            raise
        return True

    def _put_object(self, rel: str, data: bytes, mode: str) -> None:
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)
        options: dict[str, Any] = {"chunksize": _SINGLE_PUT_BYTES} if "s3" in protocols else {}
        self.fs.pipe_file(self.at(rel), data, mode=mode, **options)

    def _retry(self, attempt: Callable[[], T]) -> T:
        for pause in _pauses():
            try:
                return attempt()
            except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
                raise
            except OSError as e:
                if self.is_local or e.errno in _FINAL or _is_precondition_failed(e):
                    raise
                if pause is None:
                    raise RetryableError(
                        f"{self.url}: {type(e).__name__}: {e} (after {_ATTEMPTS} attempts); run again to continue"
                    ) from e
                time.sleep(pause)
        raise AssertionError("unreachable")


def _pauses() -> Iterator[float | None]:
    """Seconds to wait after each failed attempt, growing, with jitter; None after the last."""
    for i in range(_ATTEMPTS - 1):
        yield 0.2 * 2**i * (0.5 + random.random())
    yield None


def _link_new(tmp: str, final: str) -> bool:
    try:
        os.link(tmp, final)
    except FileExistsError:
        return False
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        if os.path.exists(final):
            return False
        os.replace(tmp, final)
    return True


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_precondition_failed(e: OSError) -> bool:
    text = str(e)
    return "PreconditionFailed" in text or "412" in text or "pre-conditions you specified" in text
