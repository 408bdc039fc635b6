"""The recipe: symmetries keep the label true, accuracy is counted by clip and by video, training learns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline.demo.motion import CLASSES
from pipeline.demo.recipe_clips import ClipSet
from pipeline.demo.recipe_training import (
    augment,
    fit,
    halved,
    logits_NK,
    measure,
    one_frame,
    shuffled,
    to_input,
)
from pipeline.models.small3d import build, start_from_differences


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def moving_squares(per_class: int) -> ClipSet:
    """A bright square that goes left, right, up or down on black: 4 frames of 24 x 24."""
    steps = {
        "translate_left": (0, -1),
        "translate_right": (0, 1),
        "translate_up": (-1, 0),
        "translate_down": (1, 0),
    }
    clips, labels = [], []
    for label, (dy, dx) in steps.items():
        for n in range(per_class):
            clip = np.full((4, 24, 24, 3), 20, np.uint8)
            for t in range(4):
                y, x = 10 + dy * 3 * (t - 2) + n % 2, 10 + dx * 3 * (t - 2) + n % 3
                clip[t, y : y + 4, x : x + 4] = 230
            clips.append(clip)
            labels.append(CLASSES.index(label))
    return ClipSet(np.stack(clips), np.array(labels), np.arange(len(labels)))


def direction(clip: np.ndarray) -> str:
    bright = clip.astype(int).sum(-1)
    bright = bright > (bright.min() + bright.max()) / 2
    y, x = (np.array([np.argwhere(f)[:, axis].mean() for f in bright]) for axis in (0, 1))
    dy, dx = y[-1] - y[0], x[-1] - x[0]
    if abs(dx) > abs(dy):
        return "translate_right" if dx > 0 else "translate_left"
    return "translate_down" if dy > 0 else "translate_up"


def test_augmented_clips_show_the_class_they_are_given() -> None:
    clips = moving_squares(6)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(5):
        frames, labels = augment(clips.frames_NTHWC, clips.labels_N, rng)
        for clip, label in zip(frames, labels, strict=True):
            assert direction(clip) == CLASSES[label]
            seen.add(CLASSES[label])
    assert len(seen) == 4
    assert direction(clips.frames_NTHWC[0]) == "translate_left"


def test_accuracy_of_a_video_is_that_of_its_mean() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    clips = ClipSet(np.zeros((4, 1, 1, 1, 3), np.uint8), np.array([0, 0, 0, 1]), np.array([5, 5, 9, 11]))
    assert measure(logits, clips) == {"videos": 3, "clips": 4, "video_accuracy": 0.6667, "clip_accuracy": 0.5}


def test_baselines_take_time_away_and_nothing_else() -> None:
    frames, rng = moving_squares(2).frames_NTHWC, np.random.default_rng(0)
    still, mixed = one_frame(frames, rng), shuffled(frames, rng)
    assert still.shape == mixed.shape == frames.shape
    assert (still == still[:, :1]).all()
    assert all(any((a[0] == f).all() for f in b) for a, b in zip(still, frames, strict=True))
    assert (np.sort(mixed, axis=1) == np.sort(frames, axis=1)).all()


def test_input_is_normalised_in_the_networks_layout() -> None:
    x = to_input(np.full((2, 4, 6, 8, 3), 255, np.uint8))
    assert x.shape == (2, 3, 4, 6, 8)
    torch.testing.assert_close(x, torch.full_like(x, (1 - 0.45) / 0.25))


def test_training_learns_directions_and_repeats(one_thread: None) -> None:
    clips = moving_squares(4)
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = build(num_classes=len(CLASSES), width=4, dropout=0.0)
        start_from_differences(model)
        fit(
            model,
            clips,
            coarse_epochs=0,
            epochs=40,
            seed=1,
            batch_size=16,
            peak_rate=2e-2,
            say=lambda _: None,
        )
        results.append(logits_NK(model, clips))
    assert measure(results[0], clips)["clip_accuracy"] > 0.6
    np.testing.assert_allclose(results[0], results[1], rtol=1e-2, atol=1e-2)


def test_halving_takes_means() -> None:
    frames = np.zeros((1, 1, 2, 4, 3), np.uint8)
    frames[0, 0, :, :2] = 200
    frames[0, 0, 0, 2] = 100
    assert halved(frames)[0, 0, :, :, 0].tolist() == [[200, 25]]


def test_a_network_that_starts_from_differences_says_nothing_of_what_stands_still() -> None:
    torch.manual_seed(0)
    model = build(num_classes=4, width=4)
    start_from_differences(model)
    kernels = [m.weight for m in model.modules() if isinstance(m, torch.nn.Conv3d) and m.kernel_size[0] > 1]
    assert kernels and all(float(k.detach().sum(2).abs().max()) < 1e-5 for k in kernels)
