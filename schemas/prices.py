"""What machines and storage cost, in any currency. Nothing is known of discounts, egress or requests."""

from __future__ import annotations

from pydantic import Field

from schemas.spec import Spec


class Prices(Spec):
    """A price list; what is not given is not counted."""

    core_hour: float | None = Field(None, ge=0)
    """Of a core, an hour."""
    gpu_hour: float | None = Field(None, ge=0)
    """Of a GPU (with the machine around it, less the cores that are counted as such), an hour."""
    gb_month: float | None = Field(None, ge=0)
    """Of a gigabyte of stored results, a month."""
