"""Flags that commands share, and what they say alike. Imports nothing heavy: a command's help must be quick."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from schemas.cluster import RayOptions
from schemas.errors import SettingsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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


def refused(error: ErrorDetails, prefix: str = "") -> str:
    """What pydantic says of a setting, by its flag. ``prefix`` is the flag of what the setting is part of."""
    parts = [prefix.removeprefix("--").strip("*"), *map(str, error["loc"])]
    where = ".".join(part.replace("_", "-") for part in parts if part)
    text = (f"--{where}: " if where else "") + error["msg"].removeprefix("Value error, ")
    ours = error["type"] == "value_error"  # which says what it found
    return (
        text if ours or not isinstance(error["input"], str | float | int) else f"{text}, not {error['input']}"
    )


def at_least(flag: str, value: int, least: int) -> None:
    """Raises SettingsError, naming the flag, where its value is below ``least``."""
    if value < least:
        raise SettingsError(f"{flag} must be at least {least}, got {value}")
