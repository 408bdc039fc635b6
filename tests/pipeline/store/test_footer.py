"""Footers: what is written is what is read; what is not ours is said to be so."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store.footer import ShardFooter, footer_of
from schemas.errors import CorruptStoreError
from schemas.shard import Failure, ShardKey

COUNTS = st.integers(0, 2**31 - 1)
FAILURES = st.builds(
    Failure,
    video_id=st.text(max_size=40),
    uri=st.text(max_size=40),
    stage=st.sampled_from(["open", "probe", "decode", "model"]),
    error=st.text(max_size=20),
    message=st.text(max_size=80),
    permanent=st.booleans(),
    attempts=COUNTS,
    missing_rows=COUNTS,
    damaged_rows=COUNTS,
    decoder=st.text(max_size=10),
)
FOOTERS = st.builds(
    ShardFooter,
    key=st.builds(ShardKey, st.integers(1, 99999), st.integers(0, 9999999)),
    kind=st.sampled_from(["targets", "videos"]),
    fingerprint=st.text(max_size=32),
    plan_hash=st.text(max_size=32),
    planned=COUNTS,
    rows=COUNTS,
    tombstoned=COUNTS,
    reopened=COUNTS,
    failures=st.lists(FAILURES, max_size=3).map(tuple),
    seconds=st.dictionaries(
        st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
    versions=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    written_at=st.text(max_size=20),
    writer=st.text(max_size=32),
)


@settings(max_examples=40, deadline=None)
@given(FOOTERS)
def test_a_footer_survives_its_bytes(footer: ShardFooter) -> None:
    assert ShardFooter.from_json(footer.to_json(), "here") == footer


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.none() | st.integers()).map(json.dumps))
def test_other_bytes_are_corrupt_and_named(data: bytes | str) -> None:
    with pytest.raises(CorruptStoreError, match="here"):
        ShardFooter.from_json(data if isinstance(data, bytes) else data.encode(), "here")


@pytest.mark.parametrize(
    "change", [{"schema_version": 99}, {"key": "g1-1"}, {"unknown": 1}, {"failures": [1]}, {"rows": None}]
)
def test_a_footer_of_another_making_is_refused(change: dict[str, object]) -> None:
    footer = ShardFooter(ShardKey(1, 0), "targets", "f", "p", 1, 1)
    body = json.loads(footer.to_json()) | change
    if change == {"rows": None}:
        del body["rows"]
    with pytest.raises(CorruptStoreError):
        ShardFooter.from_json(json.dumps(body).encode(), "here")


def test_a_parquet_file_of_others_is_named(tmp_path: object) -> None:
    path = f"{tmp_path}/x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pq.ParquetFile(path) as parquet, pytest.raises(CorruptStoreError, match=r"x\.parquet"):
        footer_of(parquet, path)
