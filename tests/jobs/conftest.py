"""Fixtures of tests that distil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.distill import distil
from tests.jobs.distilling import OPTIONS, TRAIN, make, targets_in
from tests.s3_server import s3_bucket, s3_server

__all__ = ["s3_bucket", "s3_server"]


@pytest.fixture
def quick_students(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere, and exports by the tests with that in their name; here both only take time."""
    monkeypatch.setattr("pipeline.distill.evaluate.NUM_DRAWS", 20)
    if "export" not in request.node.name:
        monkeypatch.setattr("jobs.distill.export_student", _no_export)


def _no_export(student: object, shape_THW: object, path: Path) -> float:
    path.write_bytes(b"")
    return 0.0


@pytest.fixture(scope="module")
def shared_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target store and a frame store beside each other; the folder that holds them. Not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "archive").mkdir()
    make(folder)
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., str]:
    """Makes stores of a test's own."""

    def build(**changes: object) -> str:
        (tmp_path / "archive").mkdir(exist_ok=True)
        return make(tmp_path, **changes)

    return build


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive, its targets and frames, and a student. Policies may be added to it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "archive").mkdir()
    make(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.distill.evaluate.NUM_DRAWS", 20)
        distil([targets_in(folder)], str(folder / "out"), TRAIN, OPTIONS)
    return folder


@pytest.fixture
def learnt_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the student had learnt from other videos than those that it labels in tests."""
    monkeypatch.setattr("jobs.label.learnt_from", lambda *_: pa.array([], pa.string()))
