"""Log lines for machines: one object a line, with what it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from pipeline import logs
from schemas.errors import SettingsError


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    root = logging.getLogger("locum")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before
    logging.getLogger("locum.progress").setLevel(logging.NOTSET)


def test_json_lines_hold_fields_and_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCUM_LOG", "json")
    logs.configure()
    log = logging.getLogger("locum.ray")
    log.info("not asked for")
    log.warning("shard %s", "g0001-000002", extra=logs.about(shard="g0001-000002", clips=3))
    try:
        raise ValueError("on purpose")
    except ValueError:
        log.exception("it failed")
    logging.getLogger("locum.progress").info("half", extra=logs.about(done=0.5))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [x["message"] for x in lines] == ["shard g0001-000002", "it failed", "half"]
    assert (lines[0]["shard"], lines[0]["clips"], lines[0]["level"]) == ("g0001-000002", 3, "warning")
    assert "ValueError: on purpose" in lines[1]["trace"] and lines[2]["done"] == 0.5
    assert all(x["time"].endswith("+00:00") for x in lines)


def test_text_at_a_level(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCUM_LOG_LEVEL", "INFO")
    monkeypatch.delenv("LOCUM_LOG", raising=False)
    logs.configure()
    logging.getLogger("locum.ray").info("a worker is ready")
    assert capsys.readouterr().err == "INFO a worker is ready\n"


def test_without_a_word_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCUM_LOG", "LOCUM_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    before = logging.getLogger("locum").handlers[:]
    logs.configure()
    assert logging.getLogger("locum").handlers == before


@pytest.mark.parametrize(("name", "value"), [("LOCUM_LOG", "xml"), ("LOCUM_LOG_LEVEL", "loud")])
def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=value):
        logs.configure()
