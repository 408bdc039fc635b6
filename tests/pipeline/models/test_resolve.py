from __future__ import annotations

import fsspec
import numpy as np
import pytest
import safetensors.torch
import torch

from pipeline.models.factory import find_factory
from pipeline.models.resolve import build, resolve, resolve_targets
from pipeline.models.teacher import Teacher
from schemas.errors import ModelError
from schemas.model import ModelRef

SHAPE_THW = (3, 8, 10)


def ref_of(factory: str, kwargs: dict | None = None, **fields: object) -> ModelRef:
    return ModelRef(factory=factory, kwargs=kwargs or {}, **fields)


@pytest.fixture
def file_of(networks, tmp_path):
    """Weights of MeansToLogits(4) from a seed, as a safetensors file."""

    def make(seed: int, name: str = "w.safetensors") -> str:
        torch.manual_seed(seed)
        model = find_factory(networks("MeansToLogits")).build({"num_classes": 4})
        safetensors.torch.save_file(model.state_dict(), tmp_path / name)
        return str(tmp_path / name)

    return make


def test_fills_what_determines_the_numbers(networks):
    ref = resolve(ref_of(networks("MeansToLogits"), {"num_classes": 4}), SHAPE_THW)
    assert ref.num_classes == 4
    assert ref.code.startswith("source:")
    assert ref.weights_sha256.startswith("state:")
    assert resolve(ref, SHAPE_THW) == ref


def test_random_weights_repeat_and_leave_torchs_generator_alone(networks):
    ref = ref_of(networks("MeansToLogits"), {"num_classes": 4})
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = resolve(ref, SHAPE_THW)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert resolve(ref, SHAPE_THW) == first


def test_a_factory_that_does_not_repeat_is_found_out(networks):
    ref = resolve(ref_of(networks("unrepeatable")), SHAPE_THW)
    with pytest.raises(ModelError, match=r"expected were state:.*generator of its own"):
        build(ref)


def test_build_gives_an_evaluating_model_without_gradients(networks):
    ref = resolve(ref_of(networks("MeansToLogits"), {"num_classes": 4, "p": 0.5, "norm": True}), SHAPE_THW)
    model = build(ref)
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ModelError, match="not resolved"):
        build(ref_of(networks("MeansToLogits")))


def test_weights_from_memory_and_their_hash(networks, file_of):
    with open(file_of(5), "rb") as f:
        content = f.read()
    fsspec.filesystem("memory").pipe("/resolve/w.safetensors", content)
    url = "memory://resolve/w.safetensors"
    ref = resolve(ref_of(networks("MeansToLogits"), {"num_classes": 4}, weights=url), SHAPE_THW)
    local = resolve(ref.model_copy(update={"weights": file_of(5)}), SHAPE_THW)
    assert local.weights_sha256 == ref.weights_sha256
    torch.manual_seed(5)
    expected = find_factory(networks("MeansToLogits")).build({"num_classes": 4})
    assert torch.equal(build(ref).fc.weight, expected.fc.weight)
    with pytest.raises(ModelError, match="expected was"):
        build(ref.model_copy(update={"weights": file_of(6)}))


def test_a_hash_of_the_state_serves_for_a_file_too(networks, file_of):
    ref = ref_of(networks("MeansToLogits"), {"num_classes": 4})
    own = resolve(ref, SHAPE_THW)
    of_file = own.model_copy(update={"weights": file_of(0)})
    assert resolve(of_file, SHAPE_THW).weights_sha256 == own.weights_sha256
    with pytest.raises(ModelError, match="expected were state:"):
        resolve(own.model_copy(update={"weights": file_of(1)}), SHAPE_THW)


def test_other_code_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    source = "from torch.nn import *\ndef build():\n    return Sequential(Flatten(), Linear(720, 2))\n"
    path.write_text(source)
    ref = resolve(ref_of(f"{path}:build"), SHAPE_THW)
    path.write_text(source + "# changed\n")
    with pytest.raises(ModelError, match=r"code of .* here is source:.*resolved with source:"):
        build(ref)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("tuple", "must return one tensor of logits, it returned a tuple"),
        ("flat", r"must return logits \(2, K\)"),
        ("one row", r"it returned torch.float32 of shape \(1, 4\)"),
        ("integers", "torch.int64"),
        ("nan", "not finite for ordinary frames"),
        ("nothing", "gives no logits"),
    ],
)
def test_outputs_that_no_teacher_gives(networks, what, match):
    with pytest.raises(ModelError, match=match):
        resolve(ref_of(networks("Returns"), {"what": what}), SHAPE_THW)


def test_a_wrong_layout_says_the_shape(networks):
    ref = ref_of(networks("MeansToLogits"), {"num_classes": 4}, input={"layout": "frames"})
    with pytest.raises(ModelError, match=r"input \(6, 3, 8, 10\), layout 'frames'.*check input.layout"):
        resolve(ref, SHAPE_THW)


def test_counts_must_agree(networks):
    args = (networks("MeansToLogits"), {"num_classes": 3})
    with pytest.raises(ModelError, match="gives 3 logits, but num_classes is 4"):
        resolve(ref_of(*args, num_classes=4), SHAPE_THW)
    with pytest.raises(ModelError, match="gives 3 logits, but 2 classes are named"):
        resolve(ref_of(*args, classes=("a", "b")), SHAPE_THW)
    assert resolve(ref_of(*args, classes=("a", "b", "c"), num_classes=3), SHAPE_THW).num_classes == 3


def test_the_fingerprint_follows_the_weights_and_neither_names_nor_places(
    networks, make_spec, file_of, tmp_path
):
    def fingerprint(weights: str | None, **fields: object) -> str:
        spec = make_spec(networks("MeansToLogits"), {"num_classes": 4}, weights=weights)
        ref = spec.teacher.model_copy(update=fields)
        return resolve_targets(spec.model_copy(update={"teacher": ref})).fingerprint()

    one = fingerprint(file_of(1))
    assert fingerprint(file_of(1, "elsewhere.safetensors")) == one
    assert fingerprint(file_of(1), classes=("a", "b", "c", "d")) == one
    assert fingerprint(file_of(2)) != one
    assert fingerprint(None) != one


def test_the_dry_run_sees_the_specs_own_view(make_spec, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x.new_tensor([x.shape[2:]]).expand(len(x), -1).repeat(1, x.shape[3])\n"
    )
    assert resolve_targets(make_spec(f"{path}:Net")).teacher.num_classes == 3 * 8


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_file_teaches_like_its_model(networks, make_spec, make_clips, tmp_path, dynamic):
    spec = resolve_targets(make_spec(networks("MeansToLogits"), {"num_classes": 4, "norm": True}))
    model = build(spec.teacher)
    batch = {0: torch.export.Dim("batch", min=1, max=64)} if dynamic else None
    program = torch.export.export(model, (torch.rand(2, 3, *SHAPE_THW),), dynamic_shapes=(batch,))
    torch.export.save(program, str(tmp_path / "m.pt2"))
    exported = make_spec(str(tmp_path / "m.pt2"))
    if not dynamic:
        with pytest.raises(ModelError, match=r"input \(1, 3, 3, 8, 10\).*dynamic batch"):
            resolve_targets(exported)
        return
    clips = make_clips(5)
    expected = Teacher(spec, device="cpu").logits(clips)
    teacher = Teacher(resolve_targets(exported), device="cpu", batch_size=2)
    np.testing.assert_allclose(teacher.logits(clips), expected, rtol=1e-5, atol=1e-6)
