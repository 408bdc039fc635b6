"""The frame student: it sees order, not only frames, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.models import remembered as remembered_module
from pipeline.models.frame_student import FrameStudent, build, with_changes
from pipeline.models.remembered import forget, remembered
from schemas.errors import ModelError


def clips(num_clips: int = 3, num_frames: int = 6) -> torch.Tensor:
    return torch.rand((num_clips, 3, num_frames, 32, 32), generator=torch.Generator().manual_seed(0))


def test_shapes() -> None:
    model = build(5).eval()
    assert model(clips()).shape == (3, 5)
    assert model.features(clips()).shape == (3, model.num_features)
    torch.testing.assert_close(model.head(model.features(clips())), model(clips()))


def test_the_order_of_frames_matters() -> None:
    model = build(5).eval()
    x = clips()
    assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-6)


def test_changes_are_seen_beside_what_is_there() -> None:
    x = clips().transpose(1, 2)
    both = with_changes(x)
    assert both.shape == (3, 6, 6, 32, 32)
    torch.testing.assert_close(both[:, :, :3], x)
    assert not both[:, 0, 3:].any()
    torch.testing.assert_close(both[:, 1:, 3:], x[:, 1:] - x[:, :-1])


def test_classes_that_only_motion_tells_apart_are_learnt_in_a_few_steps() -> None:
    """A patch of noise goes left or right over noise, from anywhere: no picture says which."""
    torch.manual_seed(0)
    model, rng = build(2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rights = []
    for _ in range(60):
        x = torch.rand(32, 3, 1, 32, 32, generator=rng).expand(-1, -1, 6, -1, -1).clone()
        patches, y = torch.rand(32, 3, 10, 10, generator=rng), torch.randint(0, 2, (32,), generator=rng)
        at = torch.randint(5, 17, (32, 2), generator=rng)
        for clip, patch, way, (top, start) in zip(x, patches, y.tolist(), at.tolist(), strict=True):
            for t in range(6):
                left = start + (2 * way - 1) * (t - 3)
                clip[:, t, top : top + 10, left : left + 10] = patch
        logits = model(x)
        rights.append(float((logits.argmax(1) == y).float().mean()))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
    assert sum(rights[-10:]) / 10 > 0.9


def test_a_clip_does_not_depend_on_the_clips_beside_it() -> None:
    model = build(4).eval()
    x = clips()
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


def test_where_the_image_network_is_frozen_the_rest_learns() -> None:
    model = build(4, freeze=True)
    model(clips()).sum().backward()
    assert all(p.grad is None for p in model.images.parameters())
    assert all(p.grad is not None for p in model.time.parameters())


def calls_of(model: FrameStudent, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what the image network is asked from now on."""
    asked: list[tuple[int, ...]] = []
    plain = model.images.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(x.shape))
        return plain(x)

    monkeypatch.setattr(model.images, "forward", forward)
    return asked


def test_a_frozen_image_network_sees_a_clip_once(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    model, x = build(4, freeze=True).eval(), clips()
    asked = calls_of(model, monkeypatch)
    first = model(x)
    assert len(asked) == len(x)
    torch.testing.assert_close(model(x.flip(0)), first.flip(0))
    assert len(asked) == len(x)
    other = build(4, freeze=True).eval()
    other.load_state_dict(model.state_dict())  # the same network: what it says is known
    assert torch.equal(other(x), first)
    model.train()(x)
    assert len(asked) == len(x)
    model(x + 1)
    assert len(asked) == 2 * len(x)


def test_another_frozen_network_says_something_else() -> None:
    """Also where its weights came later."""
    forget()
    model, x = build(4, freeze=True).eval(), clips()
    before = model(x)
    state = {
        k: v + 0.1 if k.startswith("images.") and v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    model.load_state_dict(state)
    after = model(x)
    assert not torch.allclose(before, after)
    forget()
    assert torch.equal(model(x), after)


def test_another_image_network_of_its_own_says_something_else_too() -> None:
    forget()
    model, x = build(4, freeze=True).eval(), clips()
    before = model(x)
    model.images.load_state_dict(
        {k: v + 0.1 if v.is_floating_point() else v for k, v in model.images.state_dict().items()}
    )
    assert not torch.allclose(before, model(x))


def test_what_cannot_be_remembered_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    frozen = build(4, freeze=True).eval()
    assert frozen(clips()[:0]).shape == (0, 4)
    half = build(4, freeze=True).eval().to(torch.bfloat16)
    assert half(clips().to(torch.bfloat16)).dtype == torch.bfloat16
    assert not remembered_module._remembered
    frozen.images.requires_grad_(True)
    frozen(clips()).sum().backward()
    assert any(p.grad is not None for p in frozen.images.parameters())
    assert not remembered_module._remembered


def test_no_more_memory_is_held_than_is_counted() -> None:
    """A network may hand out a part of something larger."""
    forget()
    remembered(lambda x: torch.zeros(len(x), 500, 4)[:, 0], "digest", clips().transpose(1, 2))
    held = [
        found.nbytes if found.base is None else found.base.nbytes
        for found in remembered_module._remembered.values()
    ]
    assert len(held) == len(clips()) and sum(held) == remembered_module._size
    forget()


def test_what_is_remembered_is_what_the_network_says(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    torch.manual_seed(3)
    frozen = build(4, freeze=True).eval()
    plain = build(4).eval()
    plain.load_state_dict(frozen.state_dict())
    x = clips()
    torch.testing.assert_close(frozen(x), plain(x), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(remembered_module, "MOST_BYTES", 0)
    forget()
    asked = calls_of(frozen, monkeypatch)
    assert torch.equal(frozen(x), frozen(x))
    assert len(asked) == 2 * len(x)  # there was no room


def test_a_frozen_student_is_exported_whole(tmp_path: Path) -> None:
    forget()
    model = build(4, freeze=True).eval()
    frames = torch.randn(3, 3, 8, 32, 32)
    program = torch.export.export(model, (frames,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.export.save(program, tmp_path / "student.pt2")
    loaded = torch.export.load(tmp_path / "student.pt2").module()
    for x in (frames, torch.randn(5, 3, 8, 32, 32)):
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"num_classes": 2, "width": 0}, "width"),
        ({"num_classes": 2, "dropout": 1.0}, "dropout"),
        ({"num_classes": 2, "backbone": "resnet"}, "no image network 'resnet'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        build(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backbone", "package"),
    [
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("efficientnet-lite0", "efficientnet"),
    ],
)
def test_a_package_that_is_missing_is_named(
    backbone: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    real = importlib.import_module

    def none(name: str, *rest: object) -> object:
        if name.split(".")[0].startswith(package):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib, "import_module", none)
    with pytest.raises(ModelError, match=f"{package}.* is not installed: pip install {package}"):
        build(2, backbone=backbone)
