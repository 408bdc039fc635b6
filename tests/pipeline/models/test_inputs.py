from __future__ import annotations

import pytest
import torch

from pipeline.models.inputs import to_channels_last, to_input, to_logits
from schemas.errors import ModelError
from schemas.model import InputSpec

FRAMES = torch.randint(0, 256, (2, 4, 6, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layout", "shape", "memory_format"),
    [("NCTHW", (2, 3, 4, 6, 5), torch.channels_last_3d), ("frames", (8, 3, 6, 5), torch.channels_last)],
)
def test_frames_lie_channels_last_already(layout, shape, memory_format):
    spec = InputSpec(layout=layout)
    x = to_input(FRAMES, spec)
    assert x.shape == shape
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=memory_format)
    plain = to_input(FRAMES, spec, channels_last=False)
    assert plain.is_contiguous()
    assert torch.equal(x, plain)


def test_the_frames_are_not_written_to():
    before = FRAMES.clone()
    to_input(FRAMES, InputSpec(scale=1.0, mean=(1, 2, 3)))
    assert torch.equal(FRAMES, before)


def test_frames_are_averaged_in_float32():
    big = torch.tensor([[60000.0], [60001.0], [60003.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    logits = to_logits(big, 2, 3, InputSpec(layout="frames"))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.tensor([[60001.3333], [2.0]]))
    halves = torch.full((6, 1), 60000.0, dtype=torch.float16)  # their sum would not fit into float16
    assert torch.isfinite(to_logits(halves, 2, 3, InputSpec(layout="frames"))).all()


@pytest.mark.parametrize(
    ("output", "match"),
    [
        ({"logits": torch.zeros(2, 3)}, "it returned a dict"),
        (torch.zeros(2), r"\(2, K\)"),
        (torch.zeros(3, 2), r"shape \(3, 2\)"),
        (torch.zeros(2, 3, dtype=torch.int64), "int64"),
    ],
)
def test_outputs_that_are_no_logits(output, match):
    with pytest.raises(ModelError, match=match):
        to_logits(output, 2, 4, InputSpec())


def test_kernels_of_both_ranks_change_place_and_not_value():
    model = torch.nn.ModuleList([torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(3, 4, 3), torch.nn.Linear(3, 4)])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    to_channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
