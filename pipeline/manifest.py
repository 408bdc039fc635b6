"""Where the videos are: a manifest (CSV, JSONL, Parquet), a folder, a glob, an object-store prefix, or one file.

A manifest has a column ``uri`` and, if wanted, ``label``, ``split``, ``group``, ``start``, ``end`` (seconds); other
columns are not read. Relative URIs are resolved against the manifest's own place. Several rows may share a file.

It says where files should be and which version of each lies there now (a *token*: size with modification time, or
ETag), not what they hold.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas.clip import US
from schemas.errors import ManifestError, RetryableError
from schemas.video import ENTRIES_SCHEMA, VIDEO_SUFFIXES

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_TEXT_COLUMNS = ("uri", "label", "split", "group")
_STAT_THREADS = 16
_LIST_WHOLE_FOLDER_FROM = 8


def read_entries(source: str) -> pa.Table:
    """Rows of `ENTRIES_SCHEMA`, in the manifest's order (sorted by path for folders and globs), with tokens.

    Raises
    ------
    ManifestError
        If nothing is there, nothing in it is a video, or rows contradict each other; the message says what was
        looked for.
    RetryableError
        If the storage did not answer.
    """
    try:
        fs, path = fsspec.core.url_to_fs(source, use_listings_cache=False)
    except (ImportError, ValueError) as e:
        raise ManifestError(f"cannot read {source!r}: {e}") from e
    try:
        if path.lower().endswith(MANIFEST_SUFFIXES) and fs.isfile(path):
            return with_tokens(_read_manifest(fs, path, source))
        return _from_listing(fs, path, source)
    except (PermissionError, TimeoutError, ConnectionError) as e:
        raise RetryableError(f"{source}: {type(e).__name__}: {e}") from e


def with_tokens(entries: pa.Table) -> pa.Table:
    """The entries with the present ``token`` and ``num_bytes`` of each URI (null where no file is there)."""
    uris = entries["uri"].to_pylist()
    stats = stat_uris(uris)
    token = pa.array([stats[u][0] for u in uris], pa.string())
    size = pa.array([stats[u][1] for u in uris], pa.int64())
    at = entries.schema.get_field_index
    entries = entries.set_column(at("token"), ENTRIES_SCHEMA.field("token"), token)
    return entries.set_column(at("num_bytes"), ENTRIES_SCHEMA.field("num_bytes"), size)


def stat_uris(uris: Iterable[str]) -> dict[str, tuple[str | None, int | None]]:
    """Token and size of each URI; (None, None) where there is no file. One listing serves a folder's files."""
    folders: dict[str, set[str]] = defaultdict(set)
    for uri in uris:
        folders[uri.rsplit("/", 1)[0]].add(uri)
    out: dict[str, tuple[str | None, int | None]] = {}
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for found in pool.map(_stat_folder, folders.values()):
            out.update(found)
    return out


def token_of(info: dict[str, Any]) -> str:
    """What tells one version of a file from another, from fsspec's ``info``: size, with ETag or modification time."""
    mark = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("mtime") or info.get("LastModified")
    mark = mark if mark is not None else info.get("created", "")
    return f"{info['size']}:{str(mark).strip(chr(34))}"


def _stat_folder(uris: set[str]) -> dict[str, tuple[str | None, int | None]]:
    some = next(iter(uris))
    fs, path = fsspec.core.url_to_fs(some, use_listings_cache=False)
    if isinstance(fs, LocalFileSystem):
        return {uri: _stat_local(uri) for uri in uris}
    listed: dict[str, dict[str, Any]] = {}
    if len(uris) >= _LIST_WHOLE_FOLDER_FROM:
        try:
            listed = {i["name"]: i for i in fs.ls(path.rsplit("/", 1)[0], detail=True) if i["type"] == "file"}
        except FileNotFoundError:
            return dict.fromkeys(uris, (None, None))
    out: dict[str, tuple[str | None, int | None]] = {}
    for uri in uris:
        name = fs._strip_protocol(uri)
        try:
            info = listed.get(name) or fs.info(name)
            out[uri] = (token_of(info), info["size"]) if info["type"] == "file" else (None, None)
        except FileNotFoundError:
            out[uri] = (None, None)
    return out


def _stat_local(path: str) -> tuple[str | None, int | None]:
    try:
        st = os.stat(path)
    except OSError:
        return None, None
    return (f"{st.st_size}:{st.st_mtime_ns}", st.st_size) if os.path.isfile(path) else (None, None)


def _from_listing(fs: Any, path: str, source: str) -> pa.Table:
    if any(c in source for c in "*?["):
        found = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
        looked = f"no file matches {source!r}"
    elif fs.isfile(path):
        found = {path: fs.info(path)}
        looked = ""
    elif fs.isdir(path):
        everything = fs.find(path, detail=True)
        found = {p: i for p, i in everything.items() if os.path.splitext(p)[1].lower() in VIDEO_SUFFIXES}
        looked = (
            f"no video below {source!r}: {len(everything)} files there, none ending in "
            f"{', '.join(sorted(VIDEO_SUFFIXES)[:8])} or the like"
        )
    else:
        raise ManifestError(
            f"there is nothing at {source!r}: looked for a manifest ({', '.join(MANIFEST_SUFFIXES)}), a folder, "
            "a glob or a video file"
        )
    if not found:
        raise ManifestError(looked)
    local = isinstance(fs, LocalFileSystem)
    names = sorted(found)
    uris = names if local else [fs.unstrip_protocol(n) for n in names]
    if local:
        stats = [_stat_local(n) for n in names]
    else:
        stats = [(token_of(found[n]), found[n]["size"]) for n in names]
    columns: dict[str, Any] = {"uri": uris, "token": [s[0] for s in stats], "num_bytes": [s[1] for s in stats]}
    return _conform(pa.table(columns))


def _read_manifest(fs: Any, path: str, source: str) -> pa.Table:
    table = _parse(fs, path, source)
    if "uri" not in table.column_names:
        raise ManifestError(f"{source}: needs a column 'uri'; it has {table.column_names}")
    if not table.num_rows:
        raise ManifestError(f"{source}: there is no row in it")
    columns: dict[str, Any] = {}
    for name in _TEXT_COLUMNS:
        if name in table.column_names:
            text = table[name].cast(pa.string())
            columns[name] = pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), None, text)
    if columns["uri"].null_count:
        row = columns["uri"].is_null().to_pylist().index(True)
        raise ManifestError(f"{source}: row {row + 1} has no uri")
    for name in ("start", "end"):
        if name in table.column_names:
            columns[f"{name}_us"] = _seconds_to_us(table[name], name, source)
    folder = source.rsplit("/", 1)[0] if "/" in source else "."
    columns["uri"] = pa.array([_resolve(u, folder) for u in columns["uri"].to_pylist()], pa.string())
    entries = _conform(pa.table(columns))
    _check_segments(entries, source)
    return entries


def _parse(fs: Any, path: str, source: str) -> pa.Table:
    try:
        with fs.open(path, "rb") as f:
            if path.lower().endswith(".parquet"):
                names = pq.read_schema(f).names
                wanted = [n for n in (*_TEXT_COLUMNS, "start", "end") if n in names]
                f.seek(0)
                return pq.read_table(f, columns=wanted) if "uri" in wanted else pa.table({n: [] for n in names})
            if path.lower().endswith((".csv", ".tsv")):
                options = pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(_TEXT_COLUMNS, pa.string()),
                    strings_can_be_null=False,
                    null_values=[""],
                    quoted_strings_can_be_null=True,
                )
                tab = pyarrow.csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
                return pyarrow.csv.read_csv(f, convert_options=options, parse_options=tab)
            return pyarrow.json.read_json(f)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as e:
        if os.fspath(path) and fs.size(path) == 0:
            raise ManifestError(f"{source}: the file is empty") from e
        raise ManifestError(f"{source}: cannot be read as {path.rsplit('.', 1)[-1]}: {e}") from e


def _seconds_to_us(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    try:
        seconds = column.cast(pa.float64())
        return pc.cast(pc.round(pc.multiply(seconds, float(US))), pa.int64())
    except pa.ArrowInvalid as e:
        raise ManifestError(f"{source}: column {name!r} is not a number of seconds: {e}") from e


def _resolve(uri: str, folder: str) -> str:
    if uri.startswith("file://"):
        uri = uri[len("file://") :]
    if "://" in uri:
        return uri
    if "://" in folder and not uri.startswith("/"):
        return f"{folder}/{uri}"
    return os.path.abspath(uri if os.path.isabs(uri) else os.path.join(folder.removeprefix("file://"), uri))


def _conform(table: pa.Table) -> pa.Table:
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in ENTRIES_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=ENTRIES_SCHEMA).combine_chunks()


def _check_segments(entries: pa.Table, source: str) -> None:
    start, end = pc.fill_null(entries["start_us"], 0), entries["end_us"]
    wrong = pc.or_(pc.less(start, 0), pc.fill_null(pc.less_equal(end, start), False))
    if pc.any(wrong).as_py():
        row = wrong.to_pylist().index(True)
        bad = entries.slice(row, 1).to_pylist()[0]
        raise ManifestError(
            f"{source}: row {row + 1} ({bad['uri']}): start {(bad['start_us'] or 0) / US} s and end "
            f"{bad['end_us'] / US if bad['end_us'] is not None else 'none'} s are no stretch of time"
        )
