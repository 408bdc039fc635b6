"""Data files: names, writing and reading, and the accounts that must add up before one is written."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.files import StoreFiles
from pipeline.store.footer import FOOTER_KEY, ShardFooter, footer_of
from pipeline.store.kinds import KINDS, StoreKind
from schemas.errors import CorruptStoreError, StoreError
from schemas.shard import Failure, ShardKey

DATA_FOLDER = "data"
_PAGE_BYTES = 4 << 20  # a shard's logits in one page or few: nobody reads a part of them
_SUFFIX = ".parquet"
_READ_ATTEMPTS = 3

T = TypeVar("T")


class ShardData(NamedTuple):
    """Rows (of the columns asked for) and footer of a data file, and the schema of all its columns."""

    table: pa.Table
    footer: ShardFooter
    schema: pa.Schema


def data_name(key: ShardKey) -> str:
    return f"{DATA_FOLDER}/{key}{_SUFFIX}"


def key_of(name: str) -> ShardKey | None:
    """The shard whose data file is called ``name`` (without folder), or None where there can be none."""
    key = ShardKey.parse(name[: -len(_SUFFIX)]) if name.endswith(_SUFFIX) else None
    return key if key is not None and data_name(key) == f"{DATA_FOLDER}/{name}" else None


def encode_shard(table: pa.Table, footer: ShardFooter) -> bytes:
    """Parquet bytes of one data file: no dictionary, statistics of keys, checksums of pages."""
    sink, kind = io.BytesIO(), KINDS[footer.kind]
    table = table.replace_schema_metadata({FOOTER_KEY: footer.to_json()})
    columns = [c for c in kind.sort_columns if c in table.column_names]
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression=kind.compression,
        use_dictionary=False,
        write_statistics=columns,
        write_page_checksum=True,
        data_page_size=_PAGE_BYTES,
    ) as writer:
        for start, end in _row_groups(table, kind):
            writer.write_table(table.slice(start, end - start), row_group_size=max(1, end - start))
    return sink.getvalue()


def _row_groups(table: pa.Table, kind: StoreKind) -> Iterator[tuple[int, int]]:
    """Bounds of the row groups: all rows in one, or whole planned units of ``kind.group_rows`` rows or more."""
    if kind.group_rows is None or not table.num_rows:
        yield 0, table.num_rows
        return
    ids = table[kind.id_column].to_pylist()
    start = 0
    for i in range(1, len(ids)):
        if i - start >= kind.group_rows and ids[i] != ids[i - 1]:
            yield start, i
            start = i
    yield start, len(ids)


def check_accounts(
    key: ShardKey, planned: Mapping[str, int], table: pa.Table, failures: Iterable[Failure], kind: StoreKind
) -> None:
    """Raises StoreError unless each planned video has the rows planned, present or missing, each once."""
    rows: Counter[str] = Counter()
    for entry in table[kind.id_column].value_counts().to_pylist():
        rows[entry["values"]] = entry["counts"]
    missing: Counter[str] = Counter()
    for failure in failures:
        missing[failure.video_id] += failure.missing_rows
    strangers = (rows.keys() | missing.keys()) - planned.keys()
    wrong = [
        f"{i}: {n} planned, {rows[i]} rows, {missing[i]} missing"
        for i, n in planned.items()
        if rows[i] + missing[i] != n
    ]
    if strangers or wrong:
        raise StoreError(
            f"shard {key} does not add up: strangers {sorted(strangers)[:3]}, accounts {wrong[:3]}"
        )
    keys = table.select(list(kind.sort_columns))
    if keys.num_rows and keys.group_by(list(kind.sort_columns)).aggregate([]).num_rows != keys.num_rows:
        raise StoreError(f"shard {key} has a row twice")


def read_data(
    files: StoreFiles,
    key: ShardKey,
    columns: Sequence[str] | None = None,
    *,
    checksums: bool = False,
    use_threads: bool = True,
) -> ShardData:
    """What a data file holds, all of one moment: a file that is rewritten meanwhile is read again.

    ``use_threads`` decodes columns in parallel; a caller that reads several files at once is quicker without.

    Raises
    ------
    CorruptStoreError
        If it is not there, not a whole Parquet file of ours, or damaged.
    """
    names = None if columns is None else list(columns)

    def read(parquet: pq.ParquetFile, footer: ShardFooter) -> ShardData:
        table = parquet.read(columns=names, use_threads=use_threads)
        return ShardData(table.replace_schema_metadata(None), footer, parquet.schema_arrow.remove_metadata())

    for attempt in range(1, _READ_ATTEMPTS + 1):
        try:
            return _read(files, key, read, whole=columns is None, checksums=checksums)
        except CorruptStoreError as e:
            if attempt == _READ_ATTEMPTS or isinstance(e.__cause__, FileNotFoundError):
                raise
    raise AssertionError("unreachable")


def read_groups(
    files: StoreFiles, key: ShardKey, columns: Sequence[str]
) -> tuple[list[tuple[pa.Table, int]], ShardFooter]:
    """The row groups of a data file, each with the columns asked for and the bytes of all of them, and its footer.

    Raises
    ------
    CorruptStoreError
        As `read_data`.
    """

    def read(parquet: pq.ParquetFile, footer: ShardFooter) -> tuple[list[tuple[pa.Table, int]], ShardFooter]:
        tables = [parquet.read_row_group(i, list(columns)) for i in range(parquet.num_row_groups)]
        sizes = [parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)]
        return [(t.replace_schema_metadata(None), n) for t, n in zip(tables, sizes, strict=True)], footer

    return _read(files, key, read)


def read_group(
    files: StoreFiles, key: ShardKey, group: int, columns: Sequence[str]
) -> tuple[pa.Table, ShardFooter] | None:
    """One row group of a data file, and its footer; None where the file has not so many any more.

    Raises
    ------
    CorruptStoreError
        As `read_data`.
    """

    def read(parquet: pq.ParquetFile, footer: ShardFooter) -> tuple[pa.Table, ShardFooter] | None:
        if group >= parquet.num_row_groups:
            return None
        table = parquet.read_row_group(group, list(columns), use_threads=False)
        return table.replace_schema_metadata(None), footer

    return _read(files, key, read)


def read_footer(files: StoreFiles, key: ShardKey) -> ShardFooter:
    """Raises CorruptStoreError as `read_data` does."""
    return _read(files, key, lambda _, footer: footer)


def _read(
    files: StoreFiles,
    key: ShardKey,
    read: Callable[[pq.ParquetFile, ShardFooter], T],
    *,
    whole: bool = False,
    checksums: bool = False,
) -> T:
    """What ``read`` makes of a data file. Faults of the file are CorruptStoreError; those of the way to it are tried
    again, and then say what to do about them."""

    def attempt() -> T:
        try:
            parquet, footer = _open(files, key, whole=whole, checksums=checksums)
            with parquet:
                return read(parquet, footer)
        except (pa.ArrowInvalid, OSError) as e:
            if isinstance(e, pa.ArrowInvalid) or _is_of_the_file(files, e):
                raise CorruptStoreError(f"{files.url}/{data_name(key)}: {type(e).__name__}: {e}") from e
            raise

    return files.retried(attempt)


def _is_of_the_file(files: StoreFiles, error: OSError) -> bool:
    """Arrow's words on damage are an OSError without a number or a cause; a client of an object store gives one."""
    if files.is_local or isinstance(error, FileNotFoundError):
        return True
    return (
        error.errno is None
        and error.__cause__ is None
        and not isinstance(error, TimeoutError | ConnectionError)
    )


def _open(
    files: StoreFiles, key: ShardKey, *, whole: bool, checksums: bool = False
) -> tuple[pq.ParquetFile, ShardFooter]:
    """``whole`` fetches a file of an object store in one request; else what is read of it is fetched then."""
    rel = data_name(key)
    if files.is_local:
        source: Any = files.at(rel)
    else:
        source = pa.BufferReader(files.read(rel)) if whole else files.open(rel)
    ahead = not (whole or files.is_local)
    parquet = pq.ParquetFile(source, pre_buffer=ahead, page_checksum_verification=checksums)
    return parquet, footer_of(parquet, f"{files.url}/{rel}")
