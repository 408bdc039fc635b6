from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from pipeline.models.factory import find_factory
from schemas.errors import ModelError

SOURCE = """
import torch
from neighbour_of_factory import WIDTH

def build(num_classes: int = 2):
    return torch.nn.Linear(WIDTH, num_classes)

class Zoo:
    class Small(torch.nn.Identity):
        pass

number = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour_of_factory.py").write_text("WIDTH = 5\n")
    path = tmp_path / "my_factory.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("neighbour_of_factory", None)
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


def test_module_and_dotted_attribute():
    assert isinstance(find_factory("torch.nn:Identity").build({}), torch.nn.Identity)
    assert isinstance(find_factory("torch:nn.Flatten").build({"start_dim": 2}), torch.nn.Flatten)


def test_file_with_a_neighbour_comes_last_on_the_path(file):
    factory = find_factory(f"{file}:build")
    assert factory.build({"num_classes": 3}).weight.shape == (3, 5)
    assert sys.path[-1] == str(file.parent)
    assert find_factory(f"{file}:Zoo.Small").code == factory.code


def test_relative_file(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert find_factory("my_factory.py:build").code == find_factory(f"{file}:build").code
    assert find_factory("./my_factory.py:build").build({}).weight.shape == (2, 5)


def test_a_changed_file_is_run_again_even_within_a_second_and_at_the_same_size(file):
    before = find_factory(f"{file}:build")
    times = file.stat()
    file.write_text(SOURCE.replace("= 2)", "= 4)"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = find_factory(f"{file}:build")
    assert len(after.build({}).weight) == 4
    assert before.code != after.code
    assert before.code.startswith("source:")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("no_such_package.models:build", r"no module 'no_such_package'.*PYTHONPATH"),
        ("pipeline.no_such_module:build", r"no module 'pipeline.no_such_module'"),
        ("pipeline.models.small3d:bulid", r"no 'bulid' in it; there are build"),
        ("torch.nn:Identity.no_such", r"no 'no_such' in it"),
        ("no/such/file.py:build", r"no file no/such/file.py \(looked for /"),
        ("torch:__version__", r"is no function but a"),
        ("small3d", r"has no form that is known"),
        (":build", r"has no form that is known"),
        ("no/such/model.pt2", r"there is no file"),
    ],
)
def test_names_that_lead_nowhere(name, match):
    with pytest.raises(ModelError, match=match):
        find_factory(name)


def test_a_dependency_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import surely_not_installed.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"imports 'surely_not_installed'.*pip install surely_not_installed"):
        find_factory("needs_more:build")
    with pytest.raises(ModelError, match=r"running .*failed: ModuleNotFoundError"):
        find_factory(f"{tmp_path / 'needs_more.py'}:build")


def test_a_file_that_fails_is_tried_again_when_mended(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def build(:\n")
    with pytest.raises(ModelError, match="SyntaxError"):
        find_factory(f"{path}:build")
    path.write_text("import torch\nbuild = torch.nn.Identity\n")
    assert isinstance(find_factory(f"{path}:build").build({}), torch.nn.Identity)


@pytest.mark.parametrize(
    ("function", "kwargs", "match"),
    [
        ("raises", {}, r"failed with \{\}: KeyError: .*the author's own mistake"),
        ("not_a_module", {}, "must return a torch.nn.Module, it returned int"),
        ("MeansToLogits", {}, "missing a required argument: 'num_classes'; it takes"),
        ("MeansToLogits", {"num_classes": 2, "q": 1}, "unexpected keyword argument 'q'"),
        ("MeansToLogits", {"num_classes": "two"}, "failed with .*TypeError"),
    ],
)
def test_factories_that_do_not_deliver(networks, function, kwargs, match):
    with pytest.raises(ModelError, match=match):
        find_factory(networks(function)).build(kwargs)


class TestExported:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2)).eval()
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (torch.rand(2, 3, 2),), dynamic_shapes=({0: batch},))
        torch.export.save(program, str(tmp_path / "model.pt2"))
        return tmp_path / "model.pt2"

    def test_round_trip_local_and_remote(self, path):
        import fsspec

        factory = find_factory(str(path))
        assert factory.exported
        assert factory.code.startswith("pt2:")
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
        x = torch.rand(5, 3, 2)
        torch.testing.assert_close(factory.build({})(x), model(x))
        fsspec.filesystem("memory").pipe("/factory/model.pt2", path.read_bytes())
        remote = find_factory("memory://factory/model.pt2")
        assert remote.code == factory.code
        torch.testing.assert_close(remote.build({})(x), model(x))

    def test_takes_no_kwargs(self, path):
        with pytest.raises(ModelError, match="do not fit"):
            find_factory(str(path)).build({"num_classes": 2})

    def test_damage(self, path):
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ModelError, match=r"model.pt2' failed with"):
            find_factory(str(path)).build({})
