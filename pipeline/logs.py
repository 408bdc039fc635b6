"""Log lines for people or for machines. What a line is about (a shard, a video, a worker) it also says as fields.

    LOCUM_LOG=json          one JSON object a line on stderr, progress included
    LOCUM_LOG_LEVEL=info    warning where not given

Without these nothing is set up, and the caller's own configuration of `logging` stands.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.errors import SettingsError

FORMAT, LEVEL = "LOCUM_LOG", "LOCUM_LOG_LEVEL"
_LEVELS = ("debug", "info", "warning", "error")
_ROOT = "locum"


def about(**fields: object) -> dict[str, Any]:
    """For ``extra=`` of a log call: what the line is about. Keys and values are kept as text or numbers."""
    return {"about": {k: v if isinstance(v, int | float) else str(v) for k, v in fields.items()}}


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What a line is about; empty where it does not say."""
    found = getattr(record, "about", None)
    return found if isinstance(found, Mapping) else {}


def as_json() -> bool:
    """Whether log lines are for machines."""
    return os.environ.get(FORMAT) == "json"


def configure() -> None:
    """Set the loggers of Locum up as the environment says.

    Raises
    ------
    SettingsError
        If it says something that is not known.
    """
    form, level = os.environ.get(FORMAT), os.environ.get(LEVEL)
    if form not in (None, "", "text", "json"):
        raise SettingsError(f"{FORMAT} is 'text' or 'json', not {form!r}")
    if level and level.lower() not in _LEVELS:
        raise SettingsError(f"{LEVEL} is one of {', '.join(_LEVELS)}, not {level!r}")
    if not form and not level:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger(_ROOT)
    root.handlers[:] = [handler]
    root.setLevel((level or "warning").upper())
    root.propagate = False
    if form == "json":
        logging.getLogger(f"{_ROOT}.progress").setLevel(logging.INFO)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
