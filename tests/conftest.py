"""Settings for every test: Locum's own folders stay out of the user's, and tiny networks run on one thread."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("locum", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("locum")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
