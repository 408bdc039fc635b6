"""The choice of an exact budget over tables, against sorting all clips."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.choice import choose, chosen

SCHEMA = pa.schema([("video_id", pa.string()), ("start_us", pa.int64()), ("score", pa.float32())])
rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.sampled_from([0.1, 0.25, -1.0, 3.0])),
    max_size=40,
    unique_by=lambda row: row[:2],
)


def tables(found: list[tuple[str, int, float]], size: int) -> list[pa.Table]:
    parts = [found[i : i + size] for i in range(0, len(found), size)]
    return [
        pa.Table.from_pylist([dict(zip(SCHEMA.names, r, strict=True)) for r in part], SCHEMA)
        for part in parts
    ]


@given(rows, st.floats(0, 1), st.integers(1, 7))
def test_it_is_the_first_so_many_by_score_video_and_time(
    found: list[tuple[str, int, float]], share: float, size: int
) -> None:
    parts = tables(found, size)
    choice = choose(lambda: parts, share)
    count = math.floor(round(share * len(found), 9))
    assert (choice.clips, choice.chosen) == (len(found), count)
    wanted = set(sorted(found, key=lambda r: (-np.float32(r[2]), r[0], r[1]))[:count])
    taken = [chosen(choice, part) for part in parts]
    flat = np.concatenate([*taken, np.zeros(0, np.bool_)])
    assert {row for row, yes in zip(found, flat.tolist(), strict=True) if yes} == wanted
    again = type(choice).model_validate_json(choice.model_dump_json())
    assert all((chosen(again, part) == t).all() for part, t in zip(parts, taken, strict=True))


def test_clips_without_a_score_and_shares_that_are_none_are_refused() -> None:
    part = pa.Table.from_pylist([{"video_id": "a", "start_us": 0, "score": None}], SCHEMA)
    with pytest.raises(ValueError, match="without a score"):
        choose(lambda: [part], 0.5)
    with pytest.raises(ValueError, match=r"0 to 1: 1\.5"):
        choose(lambda: tables([("a", 0, 1.0)], 1), 1.5)
