"""What may pass is tried again, some times; what is final is not."""

from __future__ import annotations

import pytest

from pipeline import retry
from pipeline.retry import retried


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    return found


def failing(*errors: Exception) -> tuple[list[int], object]:
    calls: list[int] = []
    left = list(errors)

    def attempt() -> str:
        calls.append(1)
        if left:
            raise left.pop(0)
        return "done"

    return calls, attempt


def test_it_goes_on_after_faults_that_pass_with_growing_pauses(pauses: list[float]) -> None:
    calls, attempt = failing(*[TimeoutError("away")] * 3)
    assert retried(attempt, (OSError,)) == "done"  # type: ignore[arg-type]
    assert len(calls) == 4 and len(pauses) == 3
    for n, pause in enumerate(pauses):
        assert 0.1 * 2**n <= pause <= 0.3 * 2**n


def test_the_last_fault_is_raised(pauses: list[float]) -> None:
    calls, attempt = failing(*[TimeoutError(str(n)) for n in range(9)])
    with pytest.raises(TimeoutError, match="3"):
        retried(attempt, (OSError,))  # type: ignore[arg-type]
    assert len(calls) == 4


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), PermissionError(13, "x"), OSError(28, "no room"), KeyError("ours")]
)
def test_what_is_final_or_no_fault_of_the_storage_is_raised_at_once(
    pauses: list[float], error: Exception
) -> None:
    calls, attempt = failing(error)
    with pytest.raises(type(error)):
        retried(attempt, (OSError,))  # type: ignore[arg-type]
    assert len(calls) == 1 and not pauses
