"""The arithmetic of the benchmark. Pure.

There are two rates beside that of the whole process, each the same for all. The work rate counts all clips from the
first work (the first video opened or the first teacher made, whichever is first; for ``ideal`` from its barrier) until
all rows were written: no queue flatters it, but loading libraries in workers that begin late still counts. The steady
rate begins when a tenth of the clips were scored: starting up is then over, but whoever decodes everything before
scoring anything looks as if decoding were free. The longer the job, the nearer the two.

Ratios are paired: each round's own ratio, then the median, with a bound below which the median of resampled rounds
falls in one of twenty cases.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from bench.teach_peers.marks import BATCH, BEGIN, BUILD, DECODE, DONE, Mark

FIRST_SHARE = 0.1


def steady_rate(marks: Sequence[Mark], first_share: float = FIRST_SHARE) -> float | None:
    """Clips a second after the first tenth; None where it cannot be told. Without ``done`` the last mark ends it."""
    batches = [mark for mark in marks if mark.kind == BATCH]
    total = sum(mark.clips for mark in batches)
    done, since = 0, None
    for mark in batches:
        done += mark.clips
        if done >= first_share * total:
            since = mark.seconds
            break
    if since is None:
        return None
    end = max((mark.seconds for mark in marks if mark.kind == DONE), default=batches[-1].seconds)
    return (total - done) / (end - since) if total > done and end > since else None


def work_rate(marks: Sequence[Mark]) -> float | None:
    """Clips a second from the first work until the rows are written; None for a job that did not end."""
    begins = [mark.seconds for mark in marks if mark.kind == BEGIN]
    begins = begins or [mark.seconds for mark in marks if mark.kind in (BUILD, DECODE)]
    ends = [mark.seconds for mark in marks if mark.kind == DONE]
    if not begins or not ends or max(ends) <= min(begins):
        return None
    return sum(mark.clips for mark in marks) / (max(ends) - min(begins))


def paired_ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """``ours / theirs`` of the rounds that have both."""
    return [a / b for a, b in zip(ours, theirs, strict=True) if a is not None and b]


def lower_bound(values: Sequence[float], draws: int = 2000, quantile: float = 0.05) -> float | None:
    """Bootstrap bound of the median, one-sided; the smallest value where there are fewer than five."""
    if len(values) < 5:
        return min(values, default=None)
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(quantile * draws)]


def median(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
