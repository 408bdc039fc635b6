"""Specs: frozen, validated settings with a stable fingerprint.

One typed definition serves the Python API, YAML and the command line (flags are generated from it:
``--clip.seconds`` is the key ``clip: {seconds: …}`` of the YAML file). The attribute docstrings are
the help texts.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown keys, finite numbers only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


def json_object(value: Any) -> Any:
    """A string (from a flag) is read as a JSON object, so that numbers stay numbers."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as e:
        raise ValueError(f"{value!r} is not a JSON object: {e}") from e


def canonical_json(value: Any) -> bytes:
    """JSON bytes that are equal for equal values, in any process and on any platform.

    Keys are sorted, separators fixed, floats written with ``repr`` (shortest round trip). An integral
    float is written as a float, so a field must always be given the same type; pydantic sees to that.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def fingerprint_of(value: Any) -> str:
    """32 hex digits (128-bit BLAKE2b) of the canonical JSON of ``value``."""
    return hashlib.blake2b(canonical_json(value), digest_size=16).hexdigest()
