"""Students: built from a reference for a number of classes, with weights drawn from a seed, and ready to train."""

from __future__ import annotations

import inspect

import torch

from pipeline.models.factory import find_factory
from pipeline.models.foreign import foreign_code
from pipeline.models.inputs import to_channels_last, to_input, to_logits
from pipeline.models.weights import fetch, load_into, read_state
from schemas.errors import ModelError
from schemas.model import ModelRef

_HINT = "check input.layout and the kept frames' number and size"


def for_classes(ref: ModelRef, num_classes: int, classes: tuple[str, ...]) -> ModelRef:
    """``ref`` with its code, and with ``num_classes`` among its kwargs where the factory takes that.

    Raises
    ------
    ModelError
        If there is no such factory, it is a torch.export file, or it was told another number.
    """
    factory = find_factory(ref.factory, with_weights=ref.weights is not None)
    if factory.exported:
        raise ModelError(
            f"{ref.factory!r} is a torch.export file, and those cannot be trained: name a factory"
        )
    kwargs = dict(ref.kwargs)
    if kwargs.setdefault("num_classes", num_classes) != num_classes:
        raise ModelError(
            f"the student is to have {kwargs['num_classes']} classes, the targets have {num_classes}"
        )
    try:
        inspect.signature(factory.function).bind(**kwargs)
    except (TypeError, ValueError):
        kwargs = dict(ref.kwargs)
    return ref.model_copy(
        update={"kwargs": kwargs, "code": factory.code, "num_classes": num_classes, "classes": classes}
    )


def build_student(
    ref: ModelRef, shape_THW: tuple[int, int, int], *, seed: int, device: str | torch.device = "cpu"
) -> torch.nn.Module:
    """The student of a reference that `for_classes` gave, in training mode, once it was seen to fit the frames.

    Raises
    ------
    ModelError
        If it cannot be built, does not take frames of that shape, gives another number of classes, or has
        nothing to train.
    """
    factory = find_factory(ref.factory, with_weights=ref.weights is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = factory.build(ref.kwargs)
        if ref.weights is not None:
            file = fetch(ref.weights, ref.weights_sha256)
            load_into(model, read_state(file.path, ref.weights), ref.weights)
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(f"the student {ref.factory!r} has no parameter to train")
    model.to(device).eval()
    to_channels_last(model)  # as decoded frames lie: `frames` trains 1.3 times as fast on a CPU
    frames = _some_frames(2, shape_THW).to(device)
    x = to_input(frames, ref.input)
    with torch.no_grad(), foreign_code(f"the student {ref.factory!r} does not take {tuple(x.shape)}", _HINT):
        output = model(x)
    found = to_logits(output, 2, shape_THW[0], ref.input).shape[1]
    if found != ref.num_classes:
        raise ModelError(
            f"the student {ref.factory!r} gives {found} classes, the targets have {ref.num_classes}"
        )
    return model.train()


def shows_features(model: torch.nn.Module, ref: ModelRef, shape_THW: tuple[int, int, int]) -> bool:
    """Whether the network's ``head`` takes what its ``features(x)`` gives, (N, F), and both together are the network.

    Found by trying, in evaluation mode, on the device where the network is.
    """
    if not callable(getattr(model, "features", None)) or not isinstance(
        getattr(model, "head", None), torch.nn.Module
    ):
        return False
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            x = to_input(_some_frames(2, shape_THW).to(device), ref.input)
            features = model.features(x)
            if not isinstance(features, torch.Tensor) or features.dim() != 2:
                return False
            return bool(torch.allclose(model.head(features), model(x), rtol=1e-4, atol=1e-5))
    except (RuntimeError, TypeError, ValueError):  # a head of another kind
        return False
    finally:
        model.train(was_training)


def _some_frames(num_clips: int, shape_THW: tuple[int, int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_clips, *shape_THW, 3), dtype=torch.uint8, generator=generator)
