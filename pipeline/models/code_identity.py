"""Which code builds a model: the string that goes into the fingerprint as ``code``.

- ``dist==version`` for a module that an installed distribution owns. The local part of a version ('+cu126')
  is left out: builds of one release for several devices are the same code.
- ``source:<sha256>`` of the module's own file for anything else: plain files, packages on ``PYTHONPATH``,
  editable installs. Locum's own modules are always of this kind, so that upgrading Locum does not rename
  every store.
- ``pt2:<sha256>`` of a torch.export file.

A hashed file is hashed together with the files that it imports from beside it (from its folder, or its top-level
package's), for a change there is a change of the code. Imports by computed names go unseen.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from pipeline.models.imported_files import imported_files
from schemas.errors import ModelError

OWN_PACKAGES = frozenset({"schemas", "pipeline", "cluster", "jobs"})
"""Top-level packages of Locum itself; hashed by source wherever they are installed."""


def code_of_module(module: ModuleType) -> str:
    """Identity of the code in ``module``.

    Raises
    ------
    ModelError
        If the module belongs to no distribution and has no source file.
    """
    top = module.__name__.partition(".")[0]
    file = getattr(module, "__file__", None)
    own = top in OWN_PACKAGES
    if not own and (found := _owner(top, file)):
        return found
    if file is None or not Path(file).is_file():
        raise ModelError(
            f"module {module.__name__!r} belongs to no installed package and has no source file, so a change "
            "of its code could not be seen: move the factory into a .py file"
        )
    path = Path(file).resolve()
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    return code_of_source(path.read_bytes(), {} if own else imported_files(path, path.parents[depth]))


def code_of_source(source: bytes, imported: Mapping[str, bytes] | None = None) -> str:
    """Identity of a plain source file with these bytes, and of the files that it imports, by their names."""
    h = hashlib.sha256(source)
    for name, content in sorted((imported or {}).items()):
        h.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return "source:" + h.hexdigest()


def code_of_distribution(name: str) -> str | None:
    """``name==version`` of an installed distribution, or None where there is none of this name."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return f"{name}=={version.partition('+')[0]}"


def _owner(top: str, file: str | None) -> str | None:
    """``dist==version`` of the distribution that installed ``file``, a part of the package ``top``."""
    for name in _distributions().get(top, []):
        if file is None or str(Path(file).resolve()) in _files_of(name):
            return code_of_distribution(name)
    return None


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return {top: sorted(set(names)) for top, names in importlib.metadata.packages_distributions().items()}


@lru_cache(maxsize=16)
def _files_of(name: str) -> frozenset[str]:
    """Resolved paths of what a distribution installed; an editable install lists none of its modules."""
    distribution = importlib.metadata.distribution(name)
    root = Path(str(distribution.locate_file(""))).resolve()
    return frozenset(str(root / str(file)) for file in distribution.files or ())
