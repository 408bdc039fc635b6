"""How a report says numbers."""

from __future__ import annotations

import math

from pipeline.metrics import Estimate


def percent(share: float) -> str:
    """As a person would say it: whole percents, tenths below ten and close to a hundred."""
    if math.isnan(share):
        return "?"
    return f"{share:.1%}" if share < 0.1 or share > 0.9 else f"{share:.0%}"


def points(difference: float) -> str:
    """A difference of two shares, in points of a hundred."""
    return f"{100 * difference:+.1f} points"


def of_points(e: Estimate) -> str:
    """The interval of such a difference."""
    if math.isnan(e.low):
        return "one group: no interval"
    return f"[{100 * e.low:+.1f}, {100 * e.high:+.1f}] (95 %)"


def money(value: float) -> str:
    """In the currency of the prices."""
    return f"{value:,.2f}"


def share(e: Estimate | None) -> str:
    if e is None or math.isnan(e.value):
        return ""
    return f"{e.value:.4f}" + ("" if math.isnan(e.low) else f" [{e.low:.4f}, {e.high:.4f}]")


def difference(e: Estimate | None) -> str:
    return "" if e is None or math.isnan(e.value) else f"{points(e.value)} {of_points(e)}"
