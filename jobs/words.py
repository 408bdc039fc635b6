"""Numbers as a person would say them. Imports nothing."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as a person would say them: ``8 s``, ``3 min 20 s``, ``5 h 10 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """Bytes as a person would say them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("unreachable")
