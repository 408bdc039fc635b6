from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.clip import ClipSpec
from schemas.model import InputSpec, ModelRef
from schemas.targets import TargetSpec, ViewSpec

NETWORKS = Path(__file__).with_name("networks.py")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tiny networks gain nothing from threads; and no test may touch the user's cache."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def networks() -> Callable[[str], str]:
    """Factory name of a network in networks.py."""
    return lambda function: f"{NETWORKS}:{function}"


@pytest.fixture
def make_spec() -> Callable[..., TargetSpec]:
    """A TargetSpec of clips of 3 frames, 10 x 8 pixels."""

    def make(
        factory: str,
        kwargs: dict[str, Any] | None = None,
        *,
        weights: str | None = None,
        view: dict[str, Any] | None = None,
        input: dict[str, Any] | None = None,
        **targets: Any,
    ) -> TargetSpec:
        ref = ModelRef(
            factory=factory, kwargs=kwargs or {}, weights=weights, input=InputSpec(**(input or {}))
        )
        return TargetSpec(
            teacher=ref,
            clip=ClipSpec(num_frames=3),
            view=ViewSpec(**{"width": 10, "height": 8, **(view or {})}),
            **targets,
        )

    return make


@pytest.fixture
def make_clips() -> Callable[..., np.ndarray]:
    """Noise: uint8 (N, V, 3, 8, 10, 3)."""

    def make(num: int, views: int = 1, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (num, views, 3, 8, 10, 3), np.uint8)

    return make
