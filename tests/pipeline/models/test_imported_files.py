from __future__ import annotations

from pathlib import Path

from pipeline.models.factory import find_factory
from pipeline.models.imported_files import imported_files


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)


def test_follows_imports_below_the_root_only(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="import b\nimport torch, json\nfrom pkg import inner\n",
        b="from c import x\n",
        c="x = 1\n",
    )
    write(
        tmp_path,
        pkg__inner="from . import other\nfrom .deep import y\n",
        pkg__other="",
        pkg__deep="y = 2",
        unused="",
    )
    (tmp_path / "pkg" / "__init__.py").write_text("")
    found = imported_files(tmp_path / "a.py", tmp_path)
    assert set(found) == {"b.py", "c.py", "pkg/__init__.py", "pkg/inner.py", "pkg/other.py", "pkg/deep.py"}
    assert found["c.py"] == b"x = 1\n"


def test_circles_and_broken_files_end(tmp_path: Path) -> None:
    write(tmp_path, a="import b", b="import a\nimport broken", broken="def (")
    assert set(imported_files(tmp_path / "a.py", tmp_path)) == {"b.py", "broken.py"}


def test_a_changed_helper_is_other_code(tmp_path: Path) -> None:
    write(
        tmp_path,
        factory_of_helper_test="import helper_of_factory_test as h\ndef build():\n    return h.net()\n",
    )
    codes = []
    for text in ("def net():\n    return 1\n", "def net():\n    return 2\n", "def net():\n    return 1\n"):
        write(tmp_path, helper_of_factory_test=text)
        codes.append(find_factory(f"{tmp_path}/factory_of_helper_test.py:build").code)
    assert codes[0] == codes[2] != codes[1]
