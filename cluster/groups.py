"""Ray's concurrency groups as a typed decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import ray

F = TypeVar("F", bound=Callable[..., Any])


def in_group(name: str) -> Callable[[F], F]:
    """The method runs in the actor's thread for this concurrency group."""
    return cast("Callable[[F], F]", ray.method(concurrency_group=name))
