from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from pipeline.models.resolve import resolve_targets
from pipeline.models.teacher import Teacher, pick_device
from schemas.errors import ModelError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def marginals(x: np.ndarray) -> np.ndarray:
    """NumPy's own answer to networks.Marginals, for one input without a batch axis."""
    axes = range(x.ndim)
    return np.concatenate([x.mean(tuple(a for a in axes if a != keep)) for keep in axes])


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("layout", "axes"), [("NCTHW", (3, 0, 1, 2)), ("NTCHW", (0, 3, 1, 2)), ("frames", (0, 3, 1, 2))]
)
def test_layout_and_normalisation_are_numpys(networks, make_spec, make_clips, layout, axes, channels_last):
    input = {"layout": layout, "mean": MEAN, "std": STD, "scale": 128.0}
    spec = resolve_targets(make_spec(networks("Marginals"), input=input, channels_last=channels_last))
    clips = make_clips(5)
    logits_NSK = Teacher(spec, device="cpu", batch_size=2).logits(clips)
    for clip, logits_SK in zip(clips, logits_NSK, strict=True):
        x = ((clip[0] / 128.0 - MEAN) / STD).transpose(axes)
        expected = np.mean([marginals(f) for f in x], axis=0) if layout == "frames" else marginals(x)
        np.testing.assert_allclose(logits_SK[0], expected, rtol=1e-5, atol=1e-6)


def test_one_array_or_a_sequence_in_any_memory_order(networks, make_spec, make_clips):
    teacher = Teacher(resolve_targets(make_spec(networks("Marginals"))), device="cpu", batch_size=2)
    clips = make_clips(5)
    mirrored = [c[..., ::-1, :][..., ::-1, :] for c in clips]
    expected = teacher.logits(clips)
    assert expected.dtype == np.float32
    assert expected.shape == (5, 1, 3 + 3 + 8 + 10)
    np.testing.assert_array_equal(teacher.logits(mirrored), expected)
    assert teacher.logits([]).shape == (0, 1, 24)
    assert teacher.seconds > 0


def test_views_outer_passes_inner(networks, make_spec, make_clips):
    view = {"fit": "crop", "crops": "three"}
    kwargs = {"num_classes": 4, "p": 0.5}
    plain = resolve_targets(make_spec(networks("MeansToLogits"), kwargs, view=view))
    several = resolve_targets(make_spec(networks("MeansToLogits"), kwargs, view=view, passes=32))
    clips = make_clips(2, views=3)
    clips[:, 1] //= 4
    clips[:, 2] = 0
    expected_NVK = Teacher(plain, device="cpu").logits(clips)
    samples_NVPK = Teacher(several, device="cpu").logits(clips).reshape(2, 3, 32, 4)
    bias_K = samples_NVPK[0, 2, 0]  # a black view leaves the bias alone, whatever is dropped
    assert (samples_NVPK[:, 2] == bias_K).all()
    assert (samples_NVPK[:, 0] != samples_NVPK[:, 0, :1]).any()
    np.testing.assert_allclose(samples_NVPK.mean(2)[:, 2], expected_NVK[:, 2], rtol=1e-6)
    spread = np.abs(samples_NVPK - bias_K).max(axis=(0, 2, 3))
    assert spread[0] > 2 * spread[1] > 0 == spread[2]


def test_batch_size_does_not_matter_and_runs_repeat(make_spec):
    spec = resolve_targets(
        make_spec("pipeline.models.small3d:build", {"num_classes": 5}, view={"width": 32, "height": 32})
    )
    clips = np.random.default_rng(1).integers(0, 256, (7, 1, 3, 32, 32, 3), np.uint8)
    logits = Teacher(spec, device="cpu", batch_size=3).logits(clips)
    np.testing.assert_array_equal(logits, Teacher(spec, device="cpu", batch_size=3).logits(clips))
    np.testing.assert_allclose(logits, Teacher(spec, device="cpu", batch_size=7).logits(clips), atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
def test_bf16_is_close_to_fp32(make_spec, channels_last):
    args = ("pipeline.models.small3d:build", {"num_classes": 5})
    options = {"view": {"width": 32, "height": 32}, "channels_last": channels_last}
    clips = np.random.default_rng(1).integers(0, 256, (4, 1, 3, 32, 32, 3), np.uint8)
    fp32 = Teacher(resolve_targets(make_spec(*args, **options)), device="cpu").logits(clips)
    bf16 = Teacher(resolve_targets(make_spec(*args, **options, precision="bf16")), device="cpu").logits(clips)
    assert bf16.dtype == np.float32
    assert 0 < np.abs(bf16 - fp32).max() < 0.05 * np.abs(fp32).max()


class TestDropout:
    @pytest.fixture
    def spec(self, networks, make_spec):
        kwargs = {"num_classes": 4, "p": 0.5, "norm": True}
        return resolve_targets(make_spec(networks("MeansToLogits"), kwargs, passes=4))

    def test_repeats_with_the_seed_and_differs_with_another(self, spec, make_clips):
        clips = make_clips(5)
        teacher = Teacher(spec, device="cpu", batch_size=2)
        before = torch.random.get_rng_state()
        first = teacher.logits(clips, seed=7)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(99)
        np.testing.assert_array_equal(teacher.logits(clips, seed=7), first)
        np.testing.assert_array_equal(Teacher(spec, device="cpu", batch_size=2).logits(clips, seed=7), first)
        assert (teacher.logits(clips, seed=8) != first).any()
        other = Teacher(spec.model_copy(update={"seed": 1}), device="cpu", batch_size=2)
        assert (other.logits(clips, seed=7) != first).any()

    def test_passes_and_batches_draw_their_own_masks(self, spec, make_clips):
        clips = np.repeat(make_clips(1), 64, axis=0)
        samples_NPK = Teacher(spec, device="cpu", batch_size=32).logits(clips)
        assert (samples_NPK[:, 0] != samples_NPK[:, 1]).any()
        assert (samples_NPK[:32] != samples_NPK[32:]).any()

    def test_batch_norm_is_left_alone(self, spec, make_clips):
        teacher = Teacher(spec, device="cpu")
        before = {k: v.clone() for k, v in teacher._model.state_dict().items()}
        teacher.logits(make_clips(5))
        assert all(torch.equal(before[k], v) for k, v in teacher._model.state_dict().items())

    def test_no_dropout_is_refused(self, networks, make_spec):
        spec = resolve_targets(make_spec(networks("MeansToLogits"), {"num_classes": 4}, passes=2))
        with pytest.raises(ModelError, match=r"2 passes need dropout.*set passes to 1"):
            Teacher(spec, device="cpu")

    def test_a_fused_transformer_layer_still_drops(self, networks, make_spec, make_clips):
        spec = resolve_targets(make_spec(networks("Attention"), passes=2))
        samples_NPK = Teacher(spec, device="cpu").logits(make_clips(4))
        assert (samples_NPK[:, 0] != samples_NPK[:, 1]).any()


class TestMemory:
    @pytest.mark.parametrize(
        "message", ["", "DefaultCPUAllocator: can't allocate memory", "not enough memory: x"]
    )
    def test_the_batch_is_halved_remembered_and_logged(
        self, networks, make_spec, make_clips, caplog, message
    ):
        spec = resolve_targets(make_spec(networks("Narrow"), {"limit": 3, "message": message}))
        plenty = resolve_targets(make_spec(networks("Narrow"), {"limit": 99}))
        clips = make_clips(8)
        teacher = Teacher(spec, device="cpu", batch_size=8)
        with caplog.at_level(logging.WARNING):
            logits = teacher.logits(clips)
        np.testing.assert_allclose(logits, Teacher(plenty, device="cpu").logits(clips), rtol=1e-6)
        assert teacher._model.asked == [8, 4, 2, 2, 2, 2]
        assert teacher._model.still_held == 0
        assert teacher.batch_size == 2
        assert len(caplog.records) == 2
        teacher.logits(clips)
        assert teacher._model.asked[6:] == [2, 2, 2, 2]

    def test_one_clip_that_does_not_fit_says_the_numbers(self, networks, make_spec, make_clips):
        spec = resolve_targets(make_spec(networks("Narrow"), {"limit": 2}, view={"flip": True}))
        teacher = Teacher(spec, device="cpu", batch_size=2)
        teacher._model.limit = 1
        with pytest.raises(ModelError, match=r"one clip of 2 views, 3 frames and 10x8 pixels does not fit"):
            teacher.logits(make_clips(2, views=2))


def test_logits_that_are_not_finite_name_the_clip(networks, make_spec, make_clips):
    teacher = Teacher(resolve_targets(make_spec(networks("Overflow"))), device="cpu", batch_size=2)
    clips = make_clips(6)
    clips[[3, 5]] = 255
    with pytest.raises(ModelError, match=r"not finite for 2 of 6 clips, the first at index 3"):
        teacher.logits(clips)


def test_another_number_of_classes_is_an_error(networks, make_spec, make_clips):
    spec = resolve_targets(make_spec(networks("MeansToLogits"), {"num_classes": 4}))
    wrong = spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"num_classes": 5})})
    with pytest.raises(ModelError, match=r"gave 4 logits for the clips from index 0, the spec says 5"):
        Teacher(wrong, device="cpu").logits(make_clips(1))


def test_a_clip_of_another_shape_or_type_is_refused(networks, make_spec, make_clips):
    teacher = Teacher(resolve_targets(make_spec(networks("Marginals"))), device="cpu")
    with pytest.raises(ValueError, match=r"clip 1 must be uint8 \(1, 3, 8, 10, 3\)"):
        teacher.logits([make_clips(1)[0], make_clips(1)[0][:, :2]])
    with pytest.raises(ValueError, match=r"it is float64"):
        teacher.logits(make_clips(1) / 255)


def test_a_failing_model_is_a_model_error(networks, make_spec, make_clips):
    teacher = Teacher(resolve_targets(make_spec(networks("Narrow"), {"limit": 9})), device="cpu")
    teacher._model.limit, teacher._model.message = 0, "shapes do not agree"
    with pytest.raises(ModelError, match=r"failed on an input \(1, 3, 3, 8, 10\): RuntimeError: shapes"):
        teacher.logits(make_clips(1))


def test_an_unresolved_spec_is_refused(networks, make_spec):
    with pytest.raises(ModelError, match="not resolved"):
        Teacher(make_spec(networks("Marginals")), device="cpu")


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="no device called 'gpu'"):
        pick_device("gpu")
    with pytest.raises(ModelError, match=r"sees \d+ GPUs"):
        pick_device("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(make_spec):
    view = {"width": 32, "height": 32}
    clips = np.random.default_rng(1).integers(0, 256, (7, 1, 3, 32, 32, 3), np.uint8)
    fp32 = resolve_targets(
        make_spec("pipeline.models.small3d:build", {"num_classes": 5}, view=view, passes=2)
    )
    bf16 = resolve_targets(
        make_spec("pipeline.models.small3d:build", {"num_classes": 5}, view=view, precision="bf16")
    )
    plain = fp32.model_copy(update={"passes": 1})
    cpu = Teacher(plain, device="cpu").logits(clips)
    np.testing.assert_allclose(Teacher(plain, device="cuda").logits(clips), cpu, atol=1e-4)
    np.testing.assert_allclose(Teacher(bf16, device="cuda").logits(clips), cpu, atol=0.05 * np.abs(cpu).max())
    samples = Teacher(fp32, device="cuda", batch_size=3).logits(clips, seed=3)
    np.testing.assert_array_equal(Teacher(fp32, device="cuda", batch_size=3).logits(clips, seed=3), samples)
