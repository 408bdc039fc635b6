"""The order of an epoch: each chosen row once, the same for the same seed, and seekable."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill.order import Blocks, Window, draws, epoch_windows, num_steps

block_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def blocks_of(sizes: list[int]) -> Blocks:
    rows = np.array(sizes, np.int64)
    return Blocks(np.cumsum(rows) - rows, rows, np.full(len(rows), 10))


def windows(sizes: list[int], chosen: np.ndarray, **change: int) -> list[tuple[int, Window]]:
    settings = {"seed": 3, "epoch": 1, "window_bytes": 30, **change}
    return list(epoch_windows(blocks_of(sizes), chosen, **settings))


@given(block_sizes, st.integers(0, 2**16), st.integers(1, 5))
def test_each_chosen_row_comes_once(sizes: list[int], seed: int, at_once: int) -> None:
    chosen = np.random.default_rng(seed).random(sum(sizes)) < 0.6
    found = windows(sizes, chosen, seed=seed, window_bytes=10 * at_once)
    rows = np.concatenate([w.rows_N for _, w in found]) if found else np.empty(0, np.int64)
    assert sorted(rows.tolist()) == np.flatnonzero(chosen).tolist()
    assert [before for before, _ in found] == [
        sum(len(w.rows_N) for _, w in found[:i]) for i in range(len(found))
    ]


@given(block_sizes, st.integers(0, 60))
def test_skipping_seeks_to_the_window_that_holds_the_row(sizes: list[int], skip: int) -> None:
    chosen = np.ones(sum(sizes), np.bool_)
    every, rest = windows(sizes, chosen), windows(sizes, chosen, skip=skip)
    expected = [(b, w.rows_N.tolist()) for b, w in every if b + len(w.rows_N) > skip]
    assert [(b, w.rows_N.tolist()) for b, w in rest] == expected


def test_the_order_is_of_the_seed_and_the_epoch() -> None:
    sizes, chosen = [7] * 20, np.ones(140, np.bool_)

    def order(**change: int) -> list[int]:
        return [row for _, w in windows(sizes, chosen, **change) for row in w.rows_N.tolist()]

    assert order() == order()
    assert order() != order(epoch=2) and order() != order(seed=4)
    assert order() != list(range(140))


def test_a_window_mixes_its_blocks() -> None:
    found = windows([10] * 6, np.ones(60, np.bool_), window_bytes=60)
    blocks_in_order = [row // 10 for row in found[0][1].rows_N.tolist()]
    assert len(set(blocks_in_order[:10])) > 2


def test_a_window_holds_its_bytes_or_a_single_block() -> None:
    rows = np.full(4, 5)
    blocks = Blocks(np.cumsum(rows) - rows, rows, np.array([10, 100, 10, 10]))
    found = list(epoch_windows(blocks, np.ones(20, np.bool_), seed=0, epoch=0, window_bytes=25))
    sizes = [int(blocks.bytes_B[w.blocks].sum()) for _, w in found]
    assert sum(sizes) == 130 and all(
        s <= 25 or len(w.blocks) == 1 for s, (_, w) in zip(sizes, found, strict=True)
    )


def test_steps_are_whole_batches_but_one_at_least() -> None:
    assert [num_steps(n, 32) for n in (0, 1, 31, 32, 63, 64)] == [0, 1, 1, 1, 1, 2]


def test_draws_of_a_step_repeat() -> None:
    assert draws(1, 2, 3).random() == draws(1, 2, 3).random() != draws(1, 2, 4).random()
