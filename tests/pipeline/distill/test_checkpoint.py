"""Checkpoints: what was saved comes back to the bit, and half a file is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.distill.checkpoint import newest, optimizer_tensors, restore_optimizer, save


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(steps):
        step_on(model, optimizer, step)
    return model, optimizer


def step_on(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, _ = trained(9)
    model, optimizer = trained(5)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | optimizer_tensors(model, optimizer)
    save(tmp_path, 5, tensors, {"state": {"a": 1}})
    found = newest(tmp_path)
    assert found is not None and found.step == 5 and found.about["state"] == {"a": 1}
    again, fresh = trained(0)
    again.load_state_dict({k[6:]: v for k, v in found.tensors.items() if k.startswith("model.")})
    restore_optimizer(again, fresh, found.tensors)
    for step in range(5, 9):
        step_on(again, fresh, step)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, {"x": torch.full((1,), float(step))}, {})
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["step-000002", "step-000003"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("harm", ["cut tensors", "no tensors", "cut json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, harm: str) -> None:
    for step in (1, 2):
        save(tmp_path, step, {"x": torch.full((1,), float(step))}, {})
    tensors, about = tmp_path / "step-000002.safetensors", tmp_path / "step-000002.json"
    if harm == "cut tensors":
        tensors.write_bytes(tensors.read_bytes()[:-3])
    elif harm == "no tensors":
        tensors.unlink()
    else:
        about.write_bytes(about.read_bytes()[:9])
    found = newest(tmp_path)
    assert found is not None and found.step == 1 and found.tensors["x"].item() == 1.0


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") is None
