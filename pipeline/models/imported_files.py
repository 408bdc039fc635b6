"""The files of one's own that a source file imports, directly or through others: read from the source, not run.

Looks only below one folder, where the importing file's neighbours are; what is installed has versions of its own. Does
not see imports by computed names (`importlib.import_module(name)`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_files(path: Path, root: Path) -> dict[str, bytes]:
    """Bytes of every file below ``root`` that ``path`` imports, by path relative to ``root``; ``path`` left out.

    A file that is no Python source any more is taken as it is, and what it would import is not looked for.
    """
    root = root.resolve()
    found: dict[str, bytes] = {}
    waiting = [path.resolve()]
    while waiting:
        current = waiting.pop()
        for neighbour in _neighbours(current, root):
            name = neighbour.relative_to(root).as_posix()
            if neighbour != path.resolve() and name not in found:
                found[name] = neighbour.read_bytes()
                waiting.append(neighbour)
    return found


def _neighbours(path: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = path.parent
            for _ in range(node.level - 1):
                base = base.parent
            parts = node.module.split(".") if node.module else []
            start = base if node.level else root
            if start.is_relative_to(root):
                yield from _files_of(start, parts)
                for alias in node.names:
                    yield from _files_of(start, [*parts, alias.name])


def _files_of(start: Path, parts: list[str]) -> Iterator[Path]:
    """Files that are run when the dotted name is imported: each package's __init__, and the module."""
    for i in range(1, len(parts) + 1):
        base = start.joinpath(*parts[:i])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                yield file.resolve()
