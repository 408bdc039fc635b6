"""A commit that is refused: again with pauses, elsewhere, given up, or the end of the run."""

from __future__ import annotations

import pytest

from cluster.patience import DOWN_SECONDS, PAUSES, Again, Patience
from schemas.shard import ShardKey

A, B = ShardKey(1, 0), ShardKey(1, 1)
LAST = len(PAUSES) + 1


def test_the_same_worker_tries_again_after_growing_pauses() -> None:
    patience = Patience()
    for tried, pause in enumerate(PAUSES, 1):
        verdict = patience.refused(A, tried, 1.0)
        assert isinstance(verdict, Again) and pause <= verdict.seconds <= 1.5 * pause


def test_then_another_and_what_two_could_not_write_is_given_up() -> None:
    patience = Patience()
    assert patience.refused(A, LAST, 60.0) == "elsewhere"
    assert patience.refused(B, LAST, 60.0) == "elsewhere"  # each shard for itself
    patience.committed()
    assert patience.refused(A, LAST, 120.0) == "given up"


@pytest.mark.parametrize("tried", range(1, LAST))
def test_a_pause_is_made_however_long_nothing_was_written(tried: int) -> None:
    patience = Patience()
    patience.refused(B, 1, 0.0)
    assert isinstance(patience.refused(A, tried, 1e6), Again)


def test_where_nothing_was_written_for_long_since_a_refusal_the_storage_is_down() -> None:
    patience = Patience()
    assert isinstance(patience.refused(A, 1, 10.0), Again)
    assert patience.refused(A, LAST, 10.0 + DOWN_SECONDS) == "elsewhere"
    assert patience.refused(B, LAST, 11.0 + DOWN_SECONDS) == "down"


def test_shards_that_take_longer_than_that_are_no_sign() -> None:
    patience = Patience()
    assert patience.refused(A, LAST, 1e6) == "elsewhere"  # the first word of a run of long shards
    patience.committed()
    assert patience.refused(B, LAST, 2e6) == "elsewhere"
