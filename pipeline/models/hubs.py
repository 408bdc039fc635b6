"""Models from torchvision, timm and transformers, by name.

The packages are optional and are imported only here. Their pretrained weights are downloaded by the packages
themselves, on each machine; a hash of the resulting parameters is part of the fingerprint, so weights that
change under their name are noticed. Kwargs win over what is chosen here (``{"weights": "KINETICS400_V1"}``).

Does not know the normalisation that a pretrained model wants: say it in ``input``. Layouts: video models of
torchvision take NCTHW, those of transformers NTCHW, all image models 'frames'.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from pipeline.models.code_identity import code_of_distribution, code_of_module
from pipeline.models.foreign import foreign_code
from schemas.errors import ModelError

_LOG = logging.getLogger(__name__)

HUBS = ("torchvision", "timm", "transformers")
"""Prefixes of 'PREFIX:NAME' that are read here; each is also the name of the package to install."""


def find(hub: str, name: str, *, pretrained: bool) -> tuple[str, Callable[..., object]]:
    """Code identity ('timm==1.0.9') and builder of the model ``name`` of ``hub``; builds nothing yet.

    ``pretrained`` asks for the hub's own weights; without it the parameters are random, for weights to be
    loaded into.

    Raises
    ------
    ModelError
        If the package is missing or does not import, or has no model of this name.
    """
    package = _import(hub)
    builders = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
    code = code_of_distribution(hub) or code_of_module(package)
    return code, builders[hub](package, name, pretrained)


def _import(hub: str) -> ModuleType:
    with foreign_code(f"importing {hub} failed", f"its build must match torch {torch.__version__}"):
        try:
            return importlib.import_module(hub)
        except ModuleNotFoundError as e:
            if e.name != hub:
                raise
            raise ModelError(
                f"'{hub}:…' needs the package {hub}, which is not installed: pip install {hub} "
                f"(a build that goes with torch {torch.__version__})"
            ) from e


def _torchvision(package: ModuleType, name: str, pretrained: bool) -> Callable[..., object]:
    models = importlib.import_module("torchvision.models")
    _check_name("torchvision", name, models.list_models())

    def build(num_classes: int | None = None, **kwargs: Any) -> object:
        given = {"weights": "DEFAULT" if pretrained else None, **kwargs}
        if given["weights"] is None:
            return models.get_model(
                name, **given, **({} if num_classes is None else {"num_classes": num_classes})
            )
        net = models.get_model(name, **given)
        return net if num_classes is None else _with_classes(net, num_classes, name)

    return build


def _with_classes(net: torch.nn.Module, num_classes: int, name: str) -> torch.nn.Module:
    """The network with a last layer of so many classes: a new one, where its weights are of other classes."""
    last = [n for n, m in net.named_modules() if not any(m.children()) and any(True for _ in m.parameters())][
        -1
    ]
    layer = net.get_submodule(last)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelError(
            f"the last layer of torchvision's {name} is a {type(layer).__name__}, which cannot be made anew for "
            f'{num_classes} classes: say {{"weights": null}} for a network without weights, or write a factory'
        )
    if layer.out_features != num_classes:
        net.set_submodule(last, torch.nn.Linear(layer.in_features, num_classes, layer.bias is not None))
        _LOG.warning("%s: its weights are of %d classes; its last layer is new", name, layer.out_features)
    return net


def _timm(package: ModuleType, name: str, pretrained: bool) -> Callable[..., object]:
    if not name.startswith(("hf_hub:", "hf-hub:")):
        _check_name("timm", name.partition(".")[0], package.list_models())

    def build(**kwargs: Any) -> object:
        return package.create_model(name, **{"pretrained": pretrained, **kwargs})

    return build


def _transformers(package: ModuleType, name: str, pretrained: bool) -> Callable[..., object]:
    def build(**kwargs: Any) -> object:
        config = package.AutoConfig.from_pretrained(name, **kwargs)
        architectures = tuple(getattr(config, "architectures", None) or ())
        if any(a.endswith("ForVideoClassification") for a in architectures):
            auto = package.AutoModelForVideoClassification
        elif any(a.endswith("ForImageClassification") for a in architectures):
            auto = package.AutoModelForImageClassification
        else:
            raise ModelError(
                f"'transformers:{name}' is a {', '.join(architectures) or 'model without an architecture'}: "
                "only models made for video or image classification have logits to give"
            )
        model = auto.from_pretrained(name, **kwargs) if pretrained else auto.from_config(config)
        return PixelsToLogits(model)

    return build


class PixelsToLogits(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Adapter of a transformers model: takes the pixels alone and returns ``.logits`` (N, K)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits_NK: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits_NK

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Takes the names of the model inside, which are those of its files."""
        return self.model.load_state_dict(state_dict, *args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.state_dict(*args, **kwargs)


def _check_name(hub: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        raise ModelError(
            f"{hub} has no model {name!r}{f'; near are {chr(44).join(near)}' if near else ''}: "
            f"{len(known)} are listed by {hub}{'.models' if hub == 'torchvision' else ''}.list_models()"
        )
