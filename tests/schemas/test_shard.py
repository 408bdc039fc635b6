"""Names of shards, and failures as JSON."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.shard import Failure, Shard, ShardKey
from schemas.video import Video

KEYS = st.builds(ShardKey, st.integers(1, 10**6), st.integers(0, 10**8))


@settings(deadline=None)
@given(KEYS, KEYS)
def test_a_key_is_its_name_and_sorts_by_generation_and_number(a: ShardKey, b: ShardKey) -> None:
    assert ShardKey.parse(str(a)) == a
    assert (a < b) == ((a.generation, a.number) < (b.generation, b.number))
    assert (str(a) == str(b)) == (a == b)
    if max(a.generation, b.generation) < 10**4 and max(a.number, b.number) < 10**6:
        assert (str(a) < str(b)) == (a < b)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "g1-1",
        "g0001",
        "0001-000001",
        "g0001-000001.parquet",
        "xg0001-000001",
        "g0001-00000a",
        "g-001-000001",
    ],
)
def test_other_names_are_no_key(text: str) -> None:
    assert ShardKey.parse(text) is None


FAILURES = st.builds(
    Failure,
    video_id=st.text(),
    uri=st.text(),
    stage=st.sampled_from(["open", "probe", "decode", "model"]),
    error=st.text(),
    message=st.text(),
    permanent=st.booleans(),
    attempts=st.integers(1, 9),
    missing_rows=st.integers(0, 9),
    damaged_rows=st.integers(0, 9),
    decoder=st.text(),
)


@settings(deadline=None)
@given(FAILURES)
def test_a_failure_survives_json_and_pickle(failure: Failure) -> None:
    assert Failure.from_json(json.loads(json.dumps(failure.to_json()))) == failure
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_a_failure_written_by_another_version_is_read_as_far_as_it_goes() -> None:
    body = Failure("v", "u", "open", "E", "m", True, 1, 2).to_json()
    del body["decoder"]
    assert Failure.from_json({**body, "severity": "high"}).decoder == ""
    with pytest.raises(TypeError):
        Failure.from_json({"video_id": "v"})


def test_a_shard_plans_the_clips_of_its_videos() -> None:
    videos = tuple(Video(f"{i:032x}", f"u{i}", 0, 1, num_clips=i) for i in range(4))
    shard = Shard(ShardKey(1, 0), videos)
    assert shard.num_planned == 6
    assert pickle.loads(pickle.dumps(shard)) == shard
