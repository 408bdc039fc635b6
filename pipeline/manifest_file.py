"""Read a manifest file: CSV, TSV, JSONL or Parquet with a column ``uri``.

If wanted it also has ``label``, ``split``, ``group`` (text, whatever it looks like) and ``start``, ``end`` (seconds);
other columns are not read. Empty text is no text. Relative URIs are resolved against the manifest's own place. Several
rows may share a file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import posixpath
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from schemas.clip import US
from schemas.errors import ManifestError
from schemas.video import ENTRIES_SCHEMA

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_TEXT_COLUMNS = ("uri", "label", "split", "group")
_BATCH_ROWS = 1 << 16
_COLUMNS = (*_TEXT_COLUMNS, "start", "end")
_BAD = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError, csv.Error)


def read_manifest(fs: Any, path: str, source: str) -> pa.Table:
    """Rows of `ENTRIES_SCHEMA` in the file's order, with neither ``token`` nor ``num_bytes``.

    Raises
    ------
    ManifestError
        If it cannot be read, or a row of it makes no sense; the message names the row, counted from 1.
    """
    with fs.open(path, "rb") as f:
        data = f.read()
    if not data.strip():
        raise ManifestError(f"{source}: the file is empty")
    parse = _PARSERS[os.path.splitext(path)[1].lower()]
    try:
        table = parse(data)
    except _BAD as e:
        raise ManifestError(f"{source}: cannot be read as {path.rsplit('.', 1)[-1]}: {e}") from e
    if "uri" not in table.column_names:
        raise ManifestError(f"{source}: needs a column 'uri'; it has {table.column_names}")
    if not table.num_rows:
        raise ManifestError(f"{source}: there is no row in it")
    columns: dict[str, Any] = {
        n: _text(table[n], n, source) for n in _TEXT_COLUMNS if n in table.column_names
    }
    if columns["uri"].null_count:
        row = columns["uri"].is_null().to_pylist().index(True)
        raise ManifestError(f"{source}: row {row + 1} has no uri")
    for name in ("start", "end"):
        if name in table.column_names:
            columns[f"{name}_us"] = _seconds_to_us(table[name], name, source)
    place = _place_of(source)
    uris = pa.table({"uri": columns["uri"]}).to_batches(max_chunksize=_BATCH_ROWS)
    columns["uri"] = pa.chunked_array([[resolve(u, place) for u in b["uri"].to_pylist()] for b in uris])
    entries = conform(pa.table(columns))
    _check_segments(entries, source)
    return entries


def conform(table: pa.Table) -> pa.Table:
    """The table with the columns of `ENTRIES_SCHEMA`; null where it has none."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in ENTRIES_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=ENTRIES_SCHEMA)


def resolve(uri: str, place: str) -> str:
    """The absolute form of a URI in a manifest that lies in the folder ``place``; a plain path for a local file."""
    for scheme in ("file://", "local://"):
        uri = uri.removeprefix(scheme)
    if "://" in uri:
        return uri
    if "://" in place and not uri.startswith("/"):
        scheme, _, folder = place.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(folder, uri))}"
    return os.path.abspath(os.path.join("/" if "://" in place else place, uri))


def _place_of(source: str) -> str:
    """Folder or URL in which a manifest lies."""
    for scheme in ("file://", "local://"):
        source = source.removeprefix(scheme)
    scheme, separator, path = source.rpartition("://")
    return f"{scheme}{separator}{posixpath.dirname(path)}" if separator else os.path.dirname(source) or "."


def _parse_parquet(data: bytes) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(data)) as parquet:
        names = parquet.schema_arrow.names
        if "uri" not in names:
            return pa.table({n: [] for n in names})
        return parquet.read(columns=[n for n in _COLUMNS if n in names])


def _parse_separated(data: bytes, delimiter: str) -> pa.Table:
    data = data.removeprefix(codecs.BOM_UTF8)
    first_line = data.splitlines()[0]
    header = next(csv.reader(io.StringIO(first_line.decode()), delimiter=delimiter), [])
    wanted = [n for n in _COLUMNS if n in header]
    twice = [n for n in wanted if header.count(n) > 1]
    if twice:
        raise ValueError(f"the column {twice[0]!r} is there twice")
    if "uri" not in wanted or not data[len(first_line) :].strip():
        return pa.table({n: [] for n in dict.fromkeys(header)})
    return pyarrow.csv.read_csv(
        io.BytesIO(data),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _parse_json_lines(data: bytes) -> pa.Table:
    columns: dict[str, list[str | None]] = {n: [] for n in _COLUMNS}
    other: set[str] = set()
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise ValueError(f"line {number}: {e}") from e
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: an object is wanted, not {line[:40]!r}")
        other |= row.keys() - columns.keys()
        for name, values in columns.items():
            value = row.get(name)
            if isinstance(value, dict | list | bool):
                raise ValueError(
                    f"line {number}: {name} must be text or a number, got {json.dumps(value)[:40]}"
                )
            values.append(value if value is None or isinstance(value, str) else repr(value))
    if not any(columns["uri"]):
        return pa.table({n: [] for n in sorted(other | {n for n, v in columns.items() if any(v)})})
    return pa.table({n: pa.array(v, pa.string()) for n, v in columns.items()})


_PARSERS: dict[str, Callable[[bytes], pa.Table]] = {
    ".csv": lambda data: _parse_separated(data, ","),
    ".tsv": lambda data: _parse_separated(data, "\t"),
    ".jsonl": _parse_json_lines,
    ".ndjson": _parse_json_lines,
    ".parquet": _parse_parquet,
}


def _text(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    try:
        text = column.cast(pa.string())
    except _BAD as e:
        raise ManifestError(f"{source}: column {name!r} is not text: {e}") from e
    empty = pc.equal(pc.utf8_trim_whitespace(text), "")
    return pc.if_else(empty, pa.scalar(None, pa.string()), text)


def _seconds_to_us(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_string(column.type):
            column = _text(pc.utf8_trim_whitespace(column), name, source)
        elif pa.types.is_boolean(column.type):
            raise pa.ArrowTypeError("truth values")
        seconds = column.cast(pa.float64())
        return pc.cast(pc.round(pc.multiply(seconds, float(US))), pa.int64())
    except _BAD as e:
        raise ManifestError(f"{source}: column {name!r} is not a number of seconds: {e}") from e


def _check_segments(entries: pa.Table, source: str) -> None:
    start, end = pc.fill_null(entries["start_us"], 0), entries["end_us"]
    wrong = pc.or_(pc.less(start, 0), pc.fill_null(pc.less_equal(end, start), False))
    if pc.any(wrong).as_py():
        row = wrong.to_pylist().index(True)
        bad = entries.slice(row, 1).to_pylist()[0]
        last = f"{bad['end_us'] / US} s" if bad["end_us"] is not None else "none"
        raise ManifestError(
            f"{source}: row {row + 1} ({bad['uri']}): start {(bad['start_us'] or 0) / US} s and end {last} are no "
            "stretch of time"
        )
