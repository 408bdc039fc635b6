from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pipeline.models.small3d
from pipeline.models.code_identity import code_of_distribution, code_of_module
from pipeline.models.factory import find_factory
from schemas.errors import ModelError


def sha(path: Path) -> str:
    return "source:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_installed_package_is_its_version_without_the_local_part():
    version = importlib.metadata.version("torch").partition("+")[0]
    assert find_factory("torch.nn:Identity").code == f"torch=={version}"
    assert code_of_distribution("torch") == f"torch=={version}"
    assert code_of_distribution("surely-not-installed") is None


def test_locums_own_modules_are_hashed():
    file = Path(pipeline.models.small3d.__file__)
    assert find_factory("pipeline.models.small3d:build").code == sha(file)


def test_own_modules_are_hashed_even_where_a_distribution_lists_them(tmp_path, monkeypatch):
    module = ModuleType("pipeline.models.small3d")
    module.__file__ = pipeline.models.small3d.__file__
    fake_distribution(tmp_path, "locum", "9.9", "pipeline", ["pipeline/models/small3d.py"])
    monkeypatch.syspath_prepend(tmp_path)
    assert code_of_module(module).startswith("source:")


def fake_distribution(folder: Path, name: str, version: str, top: str, files: list[str]) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(top + "\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that is imported from a folder; the caches of what is installed are put back."""
    from pipeline.models import code_identity

    (tmp_path / "zoo_for_test").mkdir()
    (tmp_path / "zoo_for_test" / "__init__.py").write_text("from zoo_for_test.nets import build\n")
    (tmp_path / "zoo_for_test" / "nets.py").write_text("def build(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("zoo_for_test")]:
        del sys.modules[name]
    code_identity._distributions.cache_clear()
    code_identity._files_of.cache_clear()


def test_a_package_on_the_path_is_the_file_that_defines_the_function(package):
    nets = package / "zoo_for_test" / "nets.py"
    assert find_factory("zoo_for_test:build").code == sha(nets)
    assert find_factory("zoo_for_test.nets:build").code == sha(nets)
    for name in [n for n in sys.modules if n.startswith("zoo_for_test")]:
        del sys.modules[name]
    nets.write_text("def build(): return 1  # changed\n")
    importlib.invalidate_caches()
    assert find_factory("zoo_for_test:build").code == sha(nets)


@pytest.mark.parametrize("editable", [False, True])
def test_an_installed_package_and_an_editable_one(package, editable):
    from pipeline.models import code_identity

    files = ["zoo_for_test.pth"] if editable else ["zoo_for_test/__init__.py", "zoo_for_test/nets.py"]
    fake_distribution(package, "zoo_dist", "1.2+local", "zoo_for_test", files)
    importlib.invalidate_caches()
    code_identity._distributions.cache_clear()
    code = find_factory("zoo_for_test:build").code
    assert code == (sha(package / "zoo_for_test" / "nets.py") if editable else "zoo_dist==1.2")


def test_no_file_and_no_package():
    with pytest.raises(ModelError, match="has no source file"):
        code_of_module(ModuleType("made_up_at_run_time"))
