"""Where the videos are: a manifest (CSV, TSV, JSONL, Parquet), a folder, a glob, an object-store prefix, or one file.

It says where files should be and which version of each lies there now (a *token*: size with modification time, or
ETag), not what they hold. What a manifest looks like is the business of `pipeline.manifest_file`.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipeline.faults import cause_of, remedy, transport_errors
from pipeline.manifest_file import MANIFEST_SUFFIXES, conform, read_manifest
from pipeline.retry import retried
from schemas.errors import ManifestError
from schemas.video import ENTRIES_SCHEMA, VIDEO_SUFFIXES

_STAT_THREADS = 16
_STAT_ROWS = 1 << 16
_LIST_WHOLE_FOLDER_FROM = 8

Stat = tuple[str | None, int | None]
_NO_FILE: Stat = (None, None)


def read_entries(source: str) -> pa.Table:
    """Rows of `ENTRIES_SCHEMA`, in the manifest's order (sorted by path for folders and globs), with tokens.

    Raises
    ------
    ManifestError
        If nothing is there, nothing in it is a video, or rows contradict each other; the message says what was
        looked for.
    SettingsError, RetryableError
        If the storage refused, or did not answer.
    """
    try:
        fs, path = fsspec.core.url_to_fs(source, use_listings_cache=False)
    except (ImportError, ValueError) as e:
        raise ManifestError(f"cannot read {source!r}: {e}") from e

    def read() -> tuple[pa.Table, bool]:
        info = _info(fs, path)
        if info is not None and info["type"] == "file" and path.lower().endswith(MANIFEST_SUFFIXES):
            return read_manifest(fs, path, source), False
        return _from_listing(fs, path, info, source), True

    errors = transport_errors(("s3", "http"))
    try:
        entries, has_tokens = retried(read, errors)
        return entries if has_tokens else with_tokens(entries)
    except errors as e:
        raise remedy(source, cause_of(e)) from e


def with_tokens(entries: pa.Table) -> pa.Table:
    """The entries with the present ``token`` and ``num_bytes`` of each URI (null where no file is there)."""
    stats = stat_uris(entries["uri"])
    at = entries.schema.get_field_index
    entries = entries.set_column(at("token"), ENTRIES_SCHEMA.field("token"), stats["token"])
    return entries.set_column(at("num_bytes"), ENTRIES_SCHEMA.field("num_bytes"), stats["num_bytes"])


def stat_uris(uris: pa.ChunkedArray) -> pa.Table:
    """``token`` and ``num_bytes`` of each URI; null where there is no file, or none that may be read.

    One listing serves a folder's files on an object store.

    Raises
    ------
    ManifestError
        If a URI's protocol is unknown.
    """
    tokens, sizes = [], []
    errors = transport_errors(("s3", "http"))
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for start in range(0, len(uris), _STAT_ROWS):
            names = uris.slice(start, _STAT_ROWS).to_pylist()
            folders: dict[str, set[str]] = defaultdict(set)
            for uri in names:
                folders[uri.rsplit("/", 1)[0]].add(uri)
            stats: dict[str, Stat] = {}
            for found in pool.map(lambda f: retried(lambda: _stat_folder(f), errors), folders.values()):
                stats.update(found)
            tokens.append(pa.array([stats[u][0] for u in names], pa.string()))
            sizes.append(pa.array([stats[u][1] for u in names], pa.int64()))
    columns = [pa.chunked_array(tokens, pa.string()), pa.chunked_array(sizes, pa.int64())]
    return pa.Table.from_arrays(columns, names=["token", "num_bytes"])


def token_of(info: dict[str, Any]) -> str:
    """What tells one version of a file from another, from fsspec's ``info``: size, with ETag or modification time."""
    mark = (
        info.get("ETag")
        or info.get("etag")
        or info.get("md5Hash")
        or info.get("mtime")
        or info.get("LastModified")
    )
    mark = mark if mark is not None else info.get("created", "")
    return f"{info['size']}:{str(mark).strip(chr(34))}"


def _stat_folder(uris: set[str]) -> dict[str, Stat]:
    some = next(iter(uris))
    try:
        fs, path = fsspec.core.url_to_fs(some, use_listings_cache=False)
    except (ImportError, ValueError) as e:
        raise ManifestError(f"cannot look for {some!r}: {e}") from e
    if isinstance(fs, LocalFileSystem):
        return {uri: _stat_local(fs._strip_protocol(uri)) for uri in uris}
    listed: dict[str, dict[str, Any]] = {}
    if len(uris) >= _LIST_WHOLE_FOLDER_FROM:
        try:
            listed = {i["name"]: i for i in fs.ls(path.rsplit("/", 1)[0], detail=True) if i["type"] == "file"}
        except FileNotFoundError:
            return dict.fromkeys(uris, _NO_FILE)
    return {uri: _stat_remote(fs, fs._strip_protocol(uri), listed) for uri in uris}


def _stat_remote(fs: Any, name: str, listed: dict[str, dict[str, Any]]) -> Stat:
    try:
        info = listed.get(name) or fs.info(name)
    except FileNotFoundError as e:
        if (cause := cause_of(e)) is not e:
            raise cause from e
        return _NO_FILE
    except PermissionError:  # S3 forbids to ask for what is not there and may not be listed
        return _NO_FILE
    return (token_of(info), info["size"]) if info["type"] == "file" else _NO_FILE


def _stat_local(path: str) -> Stat:
    try:
        found = os.stat(path)
    except OSError:
        return _NO_FILE
    return (
        (f"{found.st_size}:{found.st_mtime_ns}", found.st_size) if stat.S_ISREG(found.st_mode) else _NO_FILE
    )


def _info(fs: Any, path: str) -> dict[str, Any] | None:
    """What is at a path; None where there is nothing (fsspec's own isfile takes any fault for that)."""
    try:
        info: dict[str, Any] = fs.info(path)
    except FileNotFoundError as e:
        if (cause := cause_of(e)) is not e:
            raise cause from e
        return None
    return info


def _from_listing(fs: Any, path: str, info: dict[str, Any] | None, source: str) -> pa.Table:
    if info is not None and info["type"] == "file":
        found = {path: info}
    elif info is not None:
        everything = fs.find(path, detail=True)
        found = {p: i for p, i in everything.items() if os.path.splitext(p)[1].lower() in VIDEO_SUFFIXES}
        if not found:
            raise ManifestError(
                f"no video below {source!r}: {len(everything)} files there, none ending in "
                f"{', '.join(sorted(VIDEO_SUFFIXES)[:8])} or the like"
            )
    elif any(c in source for c in "*?["):
        found = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
        if not found:
            raise ManifestError(f"no file matches {source!r}")
    else:
        raise ManifestError(
            f"there is nothing at {source!r}: looked for a manifest ({', '.join(MANIFEST_SUFFIXES)}), a folder, "
            "a glob or a video file"
        )
    names = sorted(found)
    if isinstance(fs, LocalFileSystem):
        uris, stats = names, [_stat_local(n) for n in names]
    else:
        uris = [fs.unstrip_protocol(n) for n in names]
        stats = [(token_of(found[n]), found[n]["size"]) for n in names]
    columns = {"uri": uris, "token": [s[0] for s in stats], "num_bytes": [s[1] for s in stats]}
    return conform(pa.table(columns))
