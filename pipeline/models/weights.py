"""Weights: fetched from anywhere, checked by SHA-256, loaded without running any code of theirs.

Local files are read in place. Remote ones (any fsspec URL) are streamed once into
``${XDG_CACHE_HOME:-~/.cache}/locum/weights``, under a key of the URL and of what the store says of the object
(ETag, version, time, size); where it says nothing that would show a change, they are fetched again.

Read are safetensors files, and torch files that load with ``weights_only=True``. A file that needs pickle is
refused: unpickling runs whatever its author wrote.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import safetensors
import safetensors.torch
import torch
from fsspec.implementations.local import LocalFileSystem

from pipeline.faults import cause_of, protocols_of, remedy, transport_errors
from pipeline.models.foreign import foreign_code
from pipeline.retry import retried
from schemas.errors import LocumError, ModelError, SettingsError

_BLOCK = 1 << 20
_VERSION_KEYS = (
    "ETag",
    "etag",
    "checksum",
    "md5Hash",
    "version_id",
    "generation",
    "LastModified",
    "mtime",
    "created",
)
_NESTS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A local file and the SHA-256 (64 hex digits) of its bytes."""

    path: Path
    sha256: str


def cache_folder() -> Path:
    """Where remote files are kept: ``$XDG_CACHE_HOME/locum/weights``, else under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "locum" / "weights"


def fetch(url: str, expected_sha256: str | None = None) -> FetchedFile:
    """A local copy of ``url`` (the file itself where it is local) and its hash.

    Raises
    ------
    ModelError
        If there is no such file, it may not be read, its protocol is not known here, or its SHA-256 is not
        the expected one.
    RetryableError
        If reading failed for a reason that may pass.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as e:
        raise ModelError(f"{url!r} cannot be opened: {e}") from e
    try:
        if isinstance(fs, LocalFileSystem):
            local = Path(path)
            with local.open("rb") as stream:
                file = FetchedFile(local, hashlib.file_digest(stream, "sha256").hexdigest())
        else:
            errors = transport_errors(protocols_of(fs))
            file = retried(lambda: _fetch_remote(fs, path, url, expected_sha256), errors)
    except FileNotFoundError as e:
        if (cause := cause_of(e)) is not e:
            raise _said(remedy(url, cause)) from e
        raise ModelError(f"there is no file {url!r}") from e
    except (PermissionError, IsADirectoryError, NotADirectoryError) as e:
        raise ModelError(f"{url!r} cannot be read: {type(e).__name__}: {e}") from e
    except transport_errors(protocols_of(fs)) as e:
        raise _said(remedy(url, e)) from e
    if expected_sha256 is not None and file.sha256 != expected_sha256:
        raise ModelError(
            f"{url!r} has the SHA-256 {file.sha256}, expected was {expected_sha256}: "
            "it is another file, or damaged"
        )
    return file


def _said(fault: LocumError) -> LocumError:
    return ModelError(str(fault)) if isinstance(fault, SettingsError) else fault


def _fetch_remote(fs: Any, path: str, url: str, expected_sha256: str | None) -> FetchedFile:
    info = fs.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url)
    versions = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
    key = hashlib.sha256("\0".join([url, str(info.get("size")), *versions]).encode()).hexdigest()[:32]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (key + Path(path).suffix)
    if target.is_file():
        with target.open("rb") as stream:
            cached = FetchedFile(target, hashlib.file_digest(stream, "sha256").hexdigest())
        known = cached.sha256 == expected_sha256
        if known or (versions and expected_sha256 is None):
            return cached
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=folder, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as out, fs.open(path, "rb") as source:
            while block := source.read(_BLOCK):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return FetchedFile(target, digest.hexdigest())


def read_state(path: Path, called: str | None = None) -> dict[str, torch.Tensor]:
    """Tensors by name from a weights file; a nest of 'state_dict' or 'model' is taken off.

    ``called`` is what to call the file in messages. Raises `ModelError` where it cannot be read without
    pickle, is damaged, or holds something other than tensors.
    """
    name = called or str(path)
    if path.suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(str(path)))
        except safetensors.SafetensorError as e:
            raise ModelError(f"{name!r} is no whole safetensors file: {e}") from e
    with foreign_code(f"{name!r} is no whole weights file (.safetensors, or torch.save)"):
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as e:
            raise ModelError(
                f"{name!r} does not load with weights_only=True: it is no torch file, or holds more than "
                "tensors, and unpickling that would run code from the file. Where you trust it, convert it "
                "once: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            ) from e
    while isinstance(content, Mapping) and not _is_state(content):
        nest = next((n for n in _NESTS if isinstance(content.get(n), Mapping)), None)
        if nest is None:
            break
        content = content[nest]
    if not isinstance(content, Mapping) or not _is_state(content):
        found = _named([str(k) for k in content]) if isinstance(content, Mapping) else type(content).__name__
        raise ModelError(f"{name!r} holds no state_dict: expected tensors by name, found {found}")
    return dict(content)


def load_into(model: torch.nn.Module, state: Mapping[str, torch.Tensor], called: str) -> None:
    """Put ``state`` into ``model``: every name and shape must match.

    A prefix that all names share and the model's do not ('module.', '_orig_mod.', 'model.') is taken off.
    Raises `ModelError` with the first names that are missing, unexpected or of another shape.
    """
    own: dict[str, Any] = model.state_dict()
    for prefix in _PREFIXES:
        if all(k.startswith(prefix) for k in state) and not any(k.startswith(prefix) for k in own):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as e:
        missing = [k for k in own if k not in state]
        unexpected = [k for k in state if k not in own]
        shapes = [
            f"{k} is {tuple(state[k].shape)}, the model's {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and isinstance(v, torch.Tensor) and v.shape != state[k].shape
        ]
        parts = [
            f"{len(names)} {what}: {_named(names)}"
            for what, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", shapes),
            )
            if names
        ]
        raise ModelError(f"the weights {called!r} do not fit the model: {'; '.join(parts) or e}") from e


def state_digest(model: torch.nn.Module) -> str:
    """'state:' and the SHA-256 over the names, dtypes, shapes and bytes of the state_dict, sorted by name.

    Memory format and device make no difference. Raises `ModelError` for an entry that is no plain tensor.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
            raise ModelError(
                f"the model's state {name!r} is no plain tensor but a {type(value).__name__}: not hashed"
            )
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "state:" + digest.hexdigest()


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(v, torch.Tensor) for v in content.values())


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
