"""Checkpoints of a training run: safetensors and JSON, each whole or not there.

    step-000123.safetensors    weights and the state of the optimizer
    step-000123.json           step, what was measured so far, the hash of the other file; written last
    best-4.safetensors         weights of the best epoch so far, by its number

What the optimizer keeps of parameter p under the name n is the tensor ``optimizer.p.n``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

_NAME = re.compile(r"step-(\d{6,})\.json")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Where a run was after ``step`` steps."""

    step: int
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a checkpoint; older ones but the last are removed."""
    data = as_safetensors(tensors)
    stem = f"step-{step:06d}"
    write(folder / f"{stem}.safetensors", data)
    body = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), **about}
    write(folder / f"{stem}.json", json.dumps(body).encode())
    for old in _steps(folder)[:-_KEPT]:
        for suffix in ("json", "safetensors"):
            (folder / f"step-{old:06d}.{suffix}").unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint; None where there is none."""
    for step in reversed(_steps(folder)):
        stem = folder / f"step-{step:06d}"
        try:
            about = json.loads(stem.with_suffix(".json").read_text())
            data = stem.with_suffix(".safetensors").read_bytes()
        except (OSError, ValueError):
            continue
        if hashlib.sha256(data).hexdigest() == about.pop("sha256"):
            return Checkpoint(about.pop("step"), safetensors.torch.load(data), about)
    return None


def write(path: Path, data: bytes) -> None:
    """Write a file whole, over what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with partial.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a file. Modules that go by two names are written under both."""
    return bytes(
        safetensors.torch.save({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()})
    )


def save_model(path: Path, model: torch.nn.Module) -> None:
    """The model's weights and buffers, as safetensors."""
    write(path, as_safetensors(model.state_dict()))


def load_model(data: bytes, model: torch.nn.Module) -> None:
    """Put back what `save_model` wrote, from the bytes of its file."""
    model.load_state_dict(safetensors.torch.load(data))


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps, by the names of the parameters."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"optimizer.{names[id(p)]}.{key}": value
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    for name, p in model.named_parameters():
        prefix = f"optimizer.{name}."
        kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if kept:
            optimizer.state[p] = {
                key: value if key == "step" else value.to(p.device) for key, value in kept.items()
            }


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(m[1]) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))
