"""URIs with other beginnings, where a label tool needs them. Pure.

It does not know whether anything lies at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from schemas.errors import SettingsError

_SERVED = ("http://", "https://", "/data/")
"""Beginnings of what a browser is given: these are written with percent signs."""


@dataclass(frozen=True)
class Prefix:
    """URIs that begin with ``old`` begin with ``new`` instead."""

    old: str
    new: str


def parse_prefix(text: str) -> Prefix:
    """``OLD=NEW``; OLD ends at the first ``=``.

    Raises
    ------
    SettingsError
        If there is no ``=``, or nothing before it.
    """
    old, equals, new = text.partition("=")
    if not equals or not old:
        raise SettingsError(f"--uri-prefix wants OLD=NEW, as in s3://bucket/=https://example.org/: {text!r}")
    return Prefix(old, new)


def rewritten(uri: str, prefixes: Sequence[Prefix]) -> tuple[str, Prefix | None]:
    """The URI with another beginning, and which prefix made it so: the longest that fits, None where none does.

    What follows the beginning is percent-encoded where a file's name becomes a URL.
    """
    fitting = [p for p in prefixes if uri.startswith(p.old)]
    if not fitting:
        return uri, None
    prefix = max(fitting, key=lambda p: len(p.old))
    rest = uri.removeprefix(prefix.old)
    if prefix.new.startswith(_SERVED) and not uri.startswith(_SERVED[:2]):
        rest = quote(rest)
    return prefix.new + rest, prefix
