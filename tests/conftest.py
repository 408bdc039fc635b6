"""Settings for every test: Locum's own folders stay out of the user's, and files with slow tests are begun first."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("locum", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("locum")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


# Ray lowers the priority of its workers: beside other tests theirs would wait for whatever else there is to do.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files, those with slow tests first: else the last one runs on one core while the others have nothing."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
