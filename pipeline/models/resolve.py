"""Resolving a `ModelRef`: from a name to a model whose numbers are known to be the same everywhere.

`resolve` runs once, where a job is planned, and fills ``code``, ``weights_sha256`` and ``num_classes``.
`build` runs on every machine that computes, and refuses a model that is not the resolved one.

Randomness: a factory is called with torch's CPU generator at a fixed seed (the caller's state is put back),
so one that only initialises repeats. Does not know about randomness from elsewhere (NumPy, a GPU's
generator): such a factory builds another model each time, and `build` says so.
"""

from __future__ import annotations

import torch

from pipeline.models.factory import Factory, find_factory
from pipeline.models.foreign import foreign_code
from pipeline.models.hubs import HUBS
from pipeline.models.inputs import to_input, to_logits
from pipeline.models.weights import fetch, load_into, read_state, state_digest
from schemas.errors import ModelError
from schemas.model import ModelRef
from schemas.targets import TargetSpec

_SEED = 0


def resolve_targets(spec: TargetSpec, device: str = "cpu") -> TargetSpec:
    """``spec`` with its teacher resolved, on the clips and views it will see. Errors: see `resolve`."""
    shape_THW = (spec.clip.num_frames, spec.view.height, spec.view.width)
    return spec.model_copy(update={"teacher": resolve(spec.teacher, shape_THW, device)})


def resolve(ref: ModelRef, shape_THW: tuple[int, int, int], device: str = "cpu") -> ModelRef:
    """``ref`` with ``code``, ``weights_sha256`` and ``num_classes`` filled; what was given already is
    checked.

    Builds the model and runs it once on two synthetic clips of ``shape_THW`` (frames, height, width).

    Raises
    ------
    ModelError
        If the model cannot be built, does not take this shape, gives something other than finite logits (N,
        K), or contradicts what ``ref`` says of it.
    RetryableError
        If reading the weights failed for a passing reason.
    """
    model, code, sha256 = _build(ref, device)
    num_classes = _dry_run(model, ref, shape_THW, device)
    if ref.num_classes is not None and ref.num_classes != num_classes:
        raise ModelError(f"{ref.factory!r} gives {num_classes} logits, but num_classes is {ref.num_classes}")
    if ref.classes and len(ref.classes) != num_classes:
        raise ModelError(
            f"{ref.factory!r} gives {num_classes} logits, but {len(ref.classes)} classes are named"
        )
    return ref.model_copy(update={"code": code, "weights_sha256": sha256, "num_classes": num_classes})


def build(ref: ModelRef, device: str | torch.device = "cpu") -> torch.nn.Module:
    """The model of a resolved reference on ``device``: evaluation mode, no gradients.

    Raises
    ------
    ModelError
        If ``ref`` is not resolved, or what was built is not what was resolved (other code, other weights).
    RetryableError
        If reading the weights failed for a passing reason.
    """
    if ref.code is None or ref.weights_sha256 is None or ref.num_classes is None:
        raise ModelError(f"the model {ref.factory!r} is not resolved: call pipeline.models.resolve first")
    return _build(ref, str(device))[0]


def _build(ref: ModelRef, device: str) -> tuple[torch.nn.Module, str, str]:
    """Model on the device, code, and weights_sha256, all checked against what ``ref`` holds already."""
    if ref.weights is None and "num_classes" in ref.kwargs and ref.factory.partition(":")[0] in HUBS:
        raise ModelError(
            f"{ref.factory!r} with a num_classes of its own has a last layer that nobody trained: name the weights, or "
            "leave num_classes to the model"
        )
    factory = find_factory(ref.factory, with_weights=ref.weights is not None, device=device)
    if ref.code is not None and ref.code != factory.code:
        raise ModelError(
            f"the code of {ref.factory!r} here is {factory.code}, the spec was resolved with {ref.code}: "
            "bring that code back, or resolve again (which makes another store)"
        )
    expected = ref.weights_sha256
    model = _call(factory, ref)
    if ref.weights is not None:
        of_file = expected if expected is not None and not expected.startswith("state:") else None
        file = fetch(ref.weights, of_file)
        load_into(model, read_state(file.path, ref.weights), ref.weights)
        sha256 = file.sha256
    if ref.weights is None or (expected is not None and expected.startswith("state:")):
        sha256 = state_digest(model)
    if expected is not None and expected != sha256:
        raise ModelError(
            f"{ref.factory!r} built the weights {sha256}, expected were {expected}: "
            "the factory's own weights changed, or it draws random ones with a generator of its own; "
            "save them to a file and name it in 'weights'"
        )
    if not factory.exported:  # exported graphs have no modes: theirs was fixed when they were exported
        model.eval()
    return model.to(device).requires_grad_(False), factory.code, sha256


def _call(factory: Factory, ref: ModelRef) -> torch.nn.Module:
    before = torch.random.default_generator.get_state()
    torch.random.default_generator.manual_seed(_SEED)
    try:
        return factory.build(ref.kwargs)
    finally:
        torch.random.default_generator.set_state(before)


def _dry_run(model: torch.nn.Module, ref: ModelRef, shape_THW: tuple[int, int, int], device: str) -> int:
    """Number of classes. Exported graphs are run on one clip too: they may know a single batch size."""
    generator = torch.Generator().manual_seed(_SEED)
    num_classes = 0
    exported = ref.factory.endswith(".pt2")
    hint = "check input.layout, clip.num_frames, view.width and view.height"
    for batch in (2, 1) if exported else (2,):
        frames = torch.randint(0, 256, (batch, *shape_THW, 3), dtype=torch.uint8, generator=generator)
        x = to_input(frames.to(device), ref.input)
        with (
            torch.inference_mode(),
            foreign_code(
                f"{ref.factory!r} does not take an input {tuple(x.shape)}, layout {ref.input.layout!r}",
                hint + "; export with a dynamic batch" * exported,
            ),
        ):
            output = model(x)
        logits_NK = to_logits(output, batch, shape_THW[0], ref.input)
        if not bool(torch.isfinite(logits_NK).all()):
            raise ModelError(
                f"the model {ref.factory!r} gives logits that are not finite for ordinary frames"
            )
        num_classes = int(logits_NK.shape[1])
        if num_classes < 1:
            raise ModelError(
                f"the model {ref.factory!r} gives no logits: its output is {tuple(logits_NK.shape)}"
            )
    return num_classes
