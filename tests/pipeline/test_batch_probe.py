"""The probe for the batch: what it chooses of given timings, and that it measures the teacher that will run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.resolve import resolve_targets
from pipeline.tasks.batch_probe import best_batch, probe_batch
from pipeline.tasks.teach import DEFAULT_BATCH, TeachTask
from schemas.clip import ClipSpec
from schemas.model import ModelRef
from schemas.targets import TargetSpec, ViewSpec


class Clock:
    """Time that goes by only where a batch is measured."""

    def __init__(self, clip_seconds: Callable[[int], float | None]) -> None:
        self.now, self.tried, self._clip_seconds = 0.0, list[int](), clip_seconds

    def seconds_of(self, size: int) -> float | None:
        self.tried.append(size)
        each = self._clip_seconds(size)
        self.now += 4 * size * (each or 0.0)
        return None if each is None else size * each

    def best(self, most: int = 512, budget: float = 1e9) -> int:
        return best_batch(self.seconds_of, most, budget, lambda: self.now)


def test_the_smallest_that_is_nearly_as_fast_as_the_fastest_is_taken() -> None:
    clock = Clock({8: 0.0225, 16: 0.0141, 32: 0.0140, 64: 0.0139}.get)
    assert clock.best() == 16
    assert clock.tried == [8, 16, 32, 64]


def test_two_doublings_without_gain_end_it() -> None:
    clock = Clock(lambda size: 1.0)
    assert clock.best() == 8
    assert clock.tried == [8, 16, 32]


def test_one_that_does_not_fit_ends_it() -> None:
    clock = Clock(lambda size: 1 / size if size < 64 else None)
    assert clock.best() == 32
    assert Clock(lambda size: None).best() == DEFAULT_BATCH


@given(st.floats(1e-4, 10.0), st.floats(0.1, 100.0), st.integers(8, 512))
def test_it_keeps_to_its_budget_and_bound(clip_seconds: float, budget: float, most: int) -> None:
    clock = Clock(lambda size: clip_seconds / size)
    assert clock.best(most, budget) <= most
    assert len(clock.tried) == 1 or clock.now <= budget


def _task(factory: str) -> TeachTask:
    spec = TargetSpec(
        teacher=ModelRef(factory=factory, num_classes=3),
        clip=ClipSpec(num_frames=4),
        view=ViewSpec(width=16, height=16),
    )
    return TeachTask(resolve_targets(spec), device="cpu", num_threads=1)


class Stepped(torch.nn.Module):
    """Takes as long for 16 clips as for one, and cannot take more."""

    def __init__(self, most: int = 16) -> None:
        super().__init__()
        self.most = most

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        if len(x_NCTHW) > self.most:
            raise torch.OutOfMemoryError("too many")
        x = torch.ones(200, 200)
        for _ in range(20):
            x = torch.tanh(x @ x)
        return x_NCTHW.mean((2, 3, 4))


def stepped(num_classes: int = 3) -> Stepped:
    return Stepped()


def narrow(num_classes: int = 3) -> Stepped:
    return Stepped(most=4)


def test_a_real_teacher_is_measured_until_it_does_not_fit() -> None:
    threads = torch.get_num_threads()
    assert probe_batch(_task(f"{__name__}:stepped")) == 16
    assert torch.get_num_threads() == threads


def test_where_not_even_the_default_fits_it_stays_and_is_halved_later() -> None:
    assert probe_batch(_task(f"{__name__}:narrow")) == DEFAULT_BATCH


def test_a_slow_teacher_is_not_probed() -> None:
    assert probe_batch(_task(f"{__name__}:stepped"), budget_seconds=0.0) == DEFAULT_BATCH
