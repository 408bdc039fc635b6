from __future__ import annotations

import pytest
import torch

from pipeline.models.small3d import build
from schemas.errors import ModelError


def test_size_at_the_default_width():
    assert 200_000 < sum(p.numel() for p in build(10).parameters()) < 700_000


@pytest.mark.parametrize("shape_THW", [(1, 16, 16), (8, 64, 64), (5, 33, 47)])
def test_any_clip_length_and_picture_size(shape_THW):
    model = build(5, width=4).eval()
    x = torch.rand(2, 3, *shape_THW)
    assert model(x).shape == (2, 5)
    assert model.features(x).shape == (2, model.num_features) == (2, 24)


def test_evaluation_does_not_mix_the_clips_of_a_batch():
    torch.manual_seed(0)
    model = build(5, width=8).eval()
    x = torch.rand(4, 3, 8, 32, 32)
    torch.testing.assert_close(
        model(x), torch.cat([model(x[i : i + 1]) for i in range(4)]), atol=1e-6, rtol=1e-5
    )


def test_it_learns_what_only_motion_tells():
    """A square to the left or to the right: every single frame is equally likely under both."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def batch(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        label_N = torch.randint(0, 2, (num,), generator=generator)
        x = torch.zeros(num, 3, 6, 32, 32)
        for i in range(num):
            top, left = torch.randint(0, 11, (2,), generator=generator).tolist()
            for t in range(6):
                at = left + 3 * (t if label_N[i] else 5 - t)
                x[i, :, t, top : top + 6, at : at + 6] = 1
        return x, label_N

    model = build(2, width=8, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    for _ in range(40):
        x, label_N = batch(16)
        loss = torch.nn.functional.cross_entropy(model(x), label_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    x, label_N = batch(64)
    with torch.inference_mode():
        assert (model(x).argmax(1) == label_N).float().mean() > 0.9


@pytest.mark.parametrize(
    "kwargs", [{"num_classes": 0}, {"num_classes": 2, "width": 0}, {"num_classes": 2, "dropout": 1}]
)
def test_numbers_outside_their_range(kwargs):
    with pytest.raises(ModelError, match=r"small3d: .* got"):
        build(**kwargs)
