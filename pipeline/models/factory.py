"""Finds the factory that a `ModelRef` names, and calls it.

A factory is any callable that returns a `torch.nn.Module` which maps float input (its layout is said by
`schemas.model.InputSpec`) to logits (N, K). Forms of the name:

    package.module:function        an importable module; dotted attributes are followed
    path/to/file.py:function       a file; its folder goes to the end of ``sys.path`` for its own imports
    model.pt2                      a torch.export file, local or any fsspec URL
    torchvision:NAME, timm:NAME, transformers:NAME    see `pipeline.models.hubs`

Importing and calling a factory runs its author's code with the caller's rights: it is trusted like a program.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pipeline.models import hubs
from pipeline.models.code_identity import code_of_module, code_of_source
from pipeline.models.foreign import foreign_code
from pipeline.models.imported_files import imported_files
from pipeline.models.weights import fetch
from schemas.errors import ModelError


@dataclass(frozen=True, slots=True)
class Factory:
    """A factory that was found: ``build`` calls it, ``code`` is the identity of its code."""

    name: str
    code: str
    function: Callable[..., object]
    exported: bool = False
    """A torch.export file: no kwargs, no train or eval mode, and the batch sizes it was exported for."""

    def build(self, kwargs: Mapping[str, Any]) -> torch.nn.Module:
        """The module, as the factory returns it.

        Raises
        ------
        ModelError
            If ``kwargs`` do not fit, the factory raises, or what it returns is no module.
        """
        self._check_kwargs(kwargs)
        with foreign_code(f"the factory {self.name!r} failed with {dict(kwargs)!r}"):
            model = self.function(**kwargs)
        if not isinstance(model, torch.nn.Module):
            raise ModelError(
                f"the factory {self.name!r} must return a torch.nn.Module, it returned {type(model).__name__}"
            )
        return model

    def _check_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some builtins have none: then only the call can tell
            return
        try:
            signature.bind(**kwargs)
        except TypeError as e:
            raise ModelError(
                f"the kwargs {dict(kwargs)!r} do not fit the factory {self.name!r}: {e}; it takes {signature}"
            ) from e


def find_factory(name: str, *, with_weights: bool = False, device: str = "cpu") -> Factory:
    """The factory called ``name``. Imports its module, but does not call it.

    Parameters
    ----------
    name
        One of the forms above.
    with_weights
        Weights will be loaded afterwards, so the model zoos need not fetch theirs.
    device
        For torch.export files alone, whose graph may hold devices: where it will run.

    Raises
    ------
    ModelError
        If there is no such module, file or function.
    RetryableError
        If a remote torch.export file could not be read for a passing reason.
    """
    if name.endswith(".pt2"):
        return _exported(name, device)
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise ModelError(
            f"the factory {name!r} has no form that is known: 'package.module:function', "
            "'path/to/file.py:function', 'model.pt2', 'torchvision:NAME', 'timm:NAME' or 'transformers:NAME'"
        )
    if source in hubs.HUBS:
        code, function = hubs.find(source, attribute, pretrained=not with_weights)
        return Factory(name, code, function)
    if source.endswith(".py"):
        module, code = _load_file(Path(source).expanduser())
        return Factory(name, code, _attribute(module, attribute, name))
    module = _import_module(source)
    function = _attribute(module, attribute, name)
    owner = sys.modules.get(getattr(function, "__module__", None) or "", module)
    return Factory(name, code_of_module(owner), function)


def _import_module(name: str) -> ModuleType:
    with foreign_code(f"importing {name!r} failed"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as e:
            missing = e.name or ""
            if name == missing or name.startswith(missing + "."):
                raise ModelError(
                    f"there is no module {missing!r} (for {name!r}) in the environment of {sys.executable}: "
                    "install its package there, put its folder on PYTHONPATH, or name the file: "
                    "'path/to/file.py:function'"
                ) from e
            raise ModelError(
                f"the module {name!r} imports {missing!r}, which is not installed: "
                f"install what provides it, e.g. pip install {missing.partition('.')[0]}"
            ) from e


def _load_file(path: Path) -> tuple[ModuleType, str]:
    """The module of a file, and the identity of exactly the bytes that were run."""
    full = path.resolve()
    if not full.is_file():
        raise ModelError(f"there is no file {path} (looked for {full}, from the folder {os.getcwd()})")
    source = full.read_bytes()
    digest = sha256(os.fsencode(full) + b"\0" + source).hexdigest()[:12]
    module_name = f"locum_file_{full.stem}_{digest}"
    if module_name not in sys.modules:
        if str(full.parent) not in sys.path:
            sys.path.append(str(full.parent))
        spec = importlib.util.spec_from_file_location(module_name, full)
        if spec is None:
            raise ModelError(f"{full} cannot be loaded as a Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            with foreign_code(f"running {path} failed"):
                # not by the loader, whose cached byte code may be older than the bytes that are hashed
                exec(compile(source, full, "exec"), module.__dict__)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name], code_of_source(source, imported_files(full, full.parent))


def _attribute(module: ModuleType, dotted: str, name: str) -> Callable[..., object]:
    value: Any = module
    for part in dotted.split("."):
        if not hasattr(value, part):
            public = [n for n in dir(value) if not n.startswith("_") and callable(getattr(value, n, None))]
            near = difflib.get_close_matches(part, public, n=5, cutoff=0.5) or public[:8]
            there = f"; there are {', '.join(near)}" if near else ""
            raise ModelError(f"the factory {name!r} does not exist: no {part!r} in it{there}")
        value = getattr(value, part)
    if not callable(value):
        raise ModelError(f"the factory {name!r} is no function but a {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def _exported(url: str, device: str) -> Factory:
    file = fetch(url)

    def load_exported() -> object:
        program = torch.export.load(str(file.path))
        if torch.device(device).type != "cpu":
            program = torch.export.passes.move_to_device_pass(program, device)
        return program.module()

    return Factory(url, f"pt2:{file.sha256}", load_exported, exported=True)
