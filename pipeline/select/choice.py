"""Which clips an exact budget chose: the last one of them says it, so that a choice among millions is a few words.

Clips stand by falling score, equal ones by video id and start; the first so many are chosen. Scores are compared as
they are written (float32), so that any reader of them decides alike.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.select.budget import count_of
from schemas.arrays import Bools, Float32
from schemas.policy import Choice

Tables = Callable[[], Iterable[pa.Table]]
"""Tables of ``video_id``, ``start_us`` and ``score``, the same each time it is called."""


def choose(tables: Tables, share: float) -> Choice:
    """The choice of ``share`` of all clips, rounded down, in two passes; memory holds some twelve bytes a clip, and as
    many keys of clips that are as good as the last one as are chosen of them.

    Raises
    ------
    ValueError
        If the share is not 0 to 1, or a clip has no score.
    """
    score_N = np.concatenate([*map(_scores, tables()), np.empty(0, np.float32)])
    if np.isnan(score_N).any():
        raise ValueError("a clip without a score cannot be chosen among others")
    count = count_of(share, len(score_N))
    if not count:
        return Choice(share=share, clips=len(score_N), chosen=0)
    last = np.partition(score_N, len(score_N) - count)[len(score_N) - count]
    ties = count - int((score_N > last).sum())
    video_id, start_us = heapq.nsmallest(ties, _keys_at(tables, last))[-1]
    return Choice(
        share=share,
        clips=len(score_N),
        chosen=count,
        score=float(last),
        video_id=video_id,
        start_us=start_us,
    )


def chosen(choice: Choice, table: pa.Table) -> Bools:
    """Which rows of a table of the same clips were chosen; (N,)."""
    score_N = _scores(table)
    if choice.score is None:
        return np.zeros(len(score_N), np.bool_)
    last = np.float32(choice.score)
    taken_N: Bools = score_N > last
    for i in np.flatnonzero(score_N == last).tolist():
        key = (table["video_id"][i].as_py(), table["start_us"][i].as_py())
        taken_N[i] = key <= (choice.video_id, choice.start_us)
    return taken_N


def _scores(table: pa.Table) -> Float32:
    column: NDArray[np.float32] = table["score"].fill_null(float("nan")).to_numpy()
    return column


def _keys_at(tables: Tables, score: np.float32) -> Iterator[tuple[str, int]]:
    for table in tables():
        at = table.filter(pa.array(_scores(table) == score))
        yield from zip(at["video_id"].to_pylist(), at["start_us"].to_pylist(), strict=True)
