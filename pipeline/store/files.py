"""Files that appear whole or not at all, on a local disk or an object store.

Everything a store writes goes through `StoreFiles`. On a local file system a file is written under ``tmp/``,
synced, and linked into place, so the first writer wins and no reader sees half a file. On an object store it
is one PUT, conditional (If-None-Match: *) where the first writer must win. A server that ignores the
condition makes the last writer win, which is also one whole file.

It does not know what the files mean.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.faults import (
    is_taken,
    lacks_conditional_put,
    protocols_of,
    remedy,
    transport_errors,
)
from pipeline.retry import retried
from pipeline.store import local_files
from schemas.errors import SettingsError

T = TypeVar("T")

TMP = "tmp"
_SINGLE_PUT_BYTES = 4 * 2**30
_OURS_TAIL_BYTES = 64 << 10


class StoreFiles:
    """The files below one folder. Paths are relative to it, with forward slashes.

    Parameters
    ----------
    url
        A local path or any fsspec URL (``s3://bucket/prefix``, ``memory://…``). Credentials, endpoints and
        client options come from the environment and fsspec's own configuration files.

    Faults of the storage are raised as LocumError whose type says the remedy, after some attempts where
    waiting may help; only a file that is not there is a FileNotFoundError.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if "://" in url else os.path.abspath(url)
        try:
            self.fs, self.path = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as e:
            raise SettingsError(f"cannot use {url!r} as a place for files: {e}") from e
        self.path = self.path.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        protocols = protocols_of(self.fs)
        self._is_s3 = "s3" in protocols
        self._errors = transport_errors(protocols)

    @classmethod
    def below(cls, url: str, name: str) -> StoreFiles:
        """The folder ``name`` in the folder ``url``."""
        return cls(f"{url}{name}" if url.endswith("/") else f"{url}/{name}")

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]

    def at(self, rel: str) -> str:
        return f"{self.path}/{rel}" if rel else self.path

    def exists(self, rel: str) -> bool:
        return bool(self.retried(lambda: self.fs.exists(self.at(rel))))

    def read(self, rel: str) -> bytes:
        """Bytes of a file, of one moment. Raises FileNotFoundError where there is none."""
        # s3fs reads large objects in several requests, between which they may be replaced, unless told not
        # to.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        return bytes(self.retried(lambda: self.fs.cat_file(self.at(rel), **options)))

    def open(self, rel: str) -> Any:
        """A seekable binary file for ranged reads; they raise an OSError where it was replaced since."""
        options = {} if self.is_local else {"cache_type": "none"}
        return self.retried(lambda: self.fs.open(self.at(rel), "rb", **options))

    def size(self, rel: str) -> int:
        return int(self.retried(lambda: self.fs.size(self.at(rel))))

    def sizes(self, rel: str) -> dict[str, int]:
        """Size in bytes of each file in a folder, by name; empty where there is no such folder."""
        return {name: int(info["size"] or 0) for name, info in self._entries(rel, "file").items()}

    def marks(self, rel: str) -> dict[str, str | None]:
        """For each file in a folder, by name, a text that changes where its bytes do; None where none is known."""
        return {name: _mark(info) for name, info in self._entries(rel, "file").items()}

    def folders(self, rel: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; empty where there is no such folder."""
        return sorted(self._entries(rel, "directory"))

    def _entries(self, rel: str, kind: str) -> dict[str, Mapping[str, Any]]:
        def listed() -> dict[str, Mapping[str, Any]]:
            try:
                found = self.fs.ls(self.at(rel), detail=True)
            except FileNotFoundError:
                return {}
            return {i["name"].rstrip("/").rsplit("/", 1)[-1]: i for i in found if i["type"] == kind}

        return self.retried(listed)

    def list(self, rel: str) -> list[str]:
        """Names (not paths) of the files in a folder, sorted; empty where there is no such folder."""
        return sorted(self.sizes(rel))

    def put_new(self, rel: str, data: bytes) -> bool:
        """Write a file that must not exist yet. True if this call wrote it, False if one was there already.

        On object stores a file of the same size and ending is taken for ours: a PUT whose answer was lost and
        that was sent again finds its own object. So what is put must hold something of its writer near its
        end.
        """
        if self.is_local:
            return self._put_local(rel, data, replace=False)
        return self._put(lambda: self._put_object_new(rel, data))

    def put_over(self, rel: str, data: bytes) -> None:
        """Write a file, replacing the one that may be there, in one step."""
        if self.is_local:
            self._put_local(rel, data, replace=True)
        else:
            self._put(lambda: self._put_object(rel, data, "overwrite"))

    def delete(self, rel: str) -> None:
        """Remove a file; it may be gone already."""

        def remove() -> None:
            try:
                self.fs.rm_file(self.at(rel))
            except FileNotFoundError:
                pass

        self.retried(remove)

    def sweep_tmp(self, older_than_seconds: float) -> int:
        """Delete what killed writers left under ``tmp/``; number of files deleted. Only for local stores."""
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
        tmp = self.at(f"{TMP}/{uuid.uuid4().hex}")
        return self._put(lambda: local_files.put(tmp, self.at(rel), data, replace=replace))

    def _put_object_new(self, rel: str, data: bytes) -> bool:
        try:
            self._put_object(rel, data, "create")
        except OSError as e:
            if is_taken(e):
                return self._is_ours(rel, data)
            if not lacks_conditional_put(e):
                raise
            if self.fs.exists(self.at(rel)):
                return False
            self._put_object(rel, data, "overwrite")
        return True

    def _put_object(self, rel: str, data: bytes, mode: str) -> None:
        options: dict[str, Any] = {"chunksize": _SINGLE_PUT_BYTES} if self._is_s3 else {}
        self.fs.pipe_file(self.at(rel), data, mode=mode, **options)

    def _is_ours(self, rel: str, data: bytes) -> bool:
        if self.size(rel) != len(data):
            return False
        start = max(0, len(data) - _OURS_TAIL_BYTES)
        return bytes(self.fs.cat_file(self.at(rel), start=start, end=len(data))) == data[start:]

    def _put(self, attempt: Callable[[], T]) -> T:
        try:
            return self.retried(attempt)
        except FileNotFoundError as e:  # of the folder or bucket: the file itself is being made
            raise remedy(self.url, e) from e

    def retried(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, which reads of this place by itself (`open`); faults that may pass are tried again.

        Raises
        ------
        RetryableError, SettingsError
            As `pipeline.faults.remedy` says of what did not pass.
        """
        try:
            return attempt() if self.is_local else retried(attempt, self._errors)
        except FileNotFoundError:
            raise
        except NotADirectoryError as e:  # a file stands where a folder above was meant
            raise FileNotFoundError(*e.args) from e
        except self._errors as e:
            raise remedy(self.url, e) from e


def _mark(info: Mapping[str, Any]) -> str | None:
    """Object stores give a tag of the bytes; on disks a file that is replaced has another inode or time."""
    if tag := info.get("ETag") or info.get("etag"):
        return str(tag)
    return f"{info['ino']}-{info['mtime']}-{info['size']}" if "ino" in info else None
