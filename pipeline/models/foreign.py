"""The edge to code that is not ours: whatever a factory or a model raises becomes a `ModelError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import LocumError, ModelError

_MAX_CHARS = 800


@contextmanager
def foreign_code(doing: str, hint: str = "") -> Iterator[None]:
    """Run foreign code; any exception comes out as ``ModelError('<doing>: <type>: <text>')`` with its cause.

    Locum's own exceptions pass unchanged. ``hint`` says what to try and is put last.
    """
    try:
        yield
    except LocumError:
        raise
    except Exception as e:  # foreign code may raise anything; the cause is kept
        text = str(e).strip()
        if len(text) > _MAX_CHARS:
            text = text[:_MAX_CHARS] + " …"
        raise ModelError(f"{doing}: {type(e).__name__}: {text}{f' ({hint})' if hint else ''}") from e
