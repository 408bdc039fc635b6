"""The edge to code that is not ours: whatever a factory or a model raises becomes a `ModelError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import LocumError, ModelError

_MAX_CHARS = 800


@contextmanager
def foreign_code(doing: str, hint: str = "", *, memory_errors_pass: bool = False) -> Iterator[None]:
    """Run foreign code; any exception comes out as ``ModelError('<doing>: <type>: <text>')`` with its cause.

    Locum's own exceptions pass unchanged, and so do those of `is_out_of_memory` where that is asked for.
    ``hint`` says what to try and is put last.
    """
    try:
        yield
    except LocumError:
        raise
    except Exception as e:  # foreign code may raise anything; the cause is kept
        if memory_errors_pass and is_out_of_memory(e):
            raise
        text = str(e).strip()
        if len(text) > _MAX_CHARS:
            text = text[:_MAX_CHARS] + " …"
        raise ModelError(f"{doing}: {type(e).__name__}: {text}{f' ({hint})' if hint else ''}") from e


def is_out_of_memory(e: Exception) -> bool:
    """Whether the error says that a device (or the host, for the CPU) had no memory left."""
    if isinstance(e, torch.OutOfMemoryError):
        return True
    text = str(e) if isinstance(e, RuntimeError) else ""
    return "DefaultCPUAllocator" in text or "not enough memory" in text or "CUDA out of memory" in text
