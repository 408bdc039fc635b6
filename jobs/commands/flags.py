"""Flags that commands share, and what they say alike. Imports nothing heavy: a command's help must be quick."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from schemas.cluster import RayOptions
from schemas.errors import SettingsError

Out = Annotated[str, Parameter(alias="-o")]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Quiet = Annotated[bool, Parameter(alias="-q", negative=())]
Ray = Annotated[RayOptions, Parameter(name="*")]
Flag = Annotated[bool, Parameter(negative=())]


def say_failed(shards: Mapping[Any, str], of: str = "") -> None:
    """Name failed shards on stderr."""
    for key, why in shards.items():
        print(f"locum: shard {key} {of}failed: {why}", file=sys.stderr)


def run_settings(max_hours: float | None, transient: float = 0.1, damaged: float = 1.0) -> Any:
    """`pipeline.runner.RunSettings` of some flags. Raises SettingsError where one is out of range."""
    from pipeline.breaker import BreakerSettings
    from pipeline.runner import RunSettings

    if max_hours is not None and max_hours <= 0:
        raise SettingsError(f"--max-hours must be above 0, got {max_hours}")
    for flag, share in (("--max-transient-share", transient), ("--max-damaged-share", damaged)):
        if not 0 <= share <= 1:
            raise SettingsError(f"{flag} must lie in 0 to 1, got {share}")
    seconds = None if max_hours is None else max_hours * 3600
    return RunSettings(seconds, BreakerSettings(transient, damaged))


def at_least(flag: str, value: int, least: int) -> None:
    """Raises SettingsError, naming the flag, where its value is below ``least``."""
    if value < least:
        raise SettingsError(f"{flag} must be at least {least}, got {value}")
