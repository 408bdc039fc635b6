"""Sheets: frames come back in order and near what they were; what is no sheet is named as such."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.sheets import decode_sheet, encode_sheet
from schemas.errors import CorruptStoreError


def frames(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures, each with a shade of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 3, 3, 3)).astype(np.float64)
    x, y = np.linspace(0, 2, width), np.linspace(0, 2, height)
    rows = np.stack(
        [[np.interp(y, range(3), f[:, c, k]) for c in range(3) for k in range(3)] for f in coarse]
    )
    grid = rows.reshape(num_frames, 3, 3, height)
    full = np.stack(
        [
            [[np.interp(x, range(3), grid[t, :, k, h]) for k in range(3)] for h in range(height)]
            for t in range(num_frames)
        ]
    )
    return full.transpose(0, 1, 3, 2).round().astype(np.uint8)


@pytest.mark.parametrize("shape", [(8, 48, 48), (1, 17, 33), (5, 50, 40), (16, 8, 8)])
def test_frames_come_back_in_order_and_nearly_the_same(shape: tuple[int, int, int]) -> None:
    before = frames(*shape)
    after = decode_sheet(encode_sheet(before, 95), shape[0])
    assert after.shape == before.shape and after.dtype == np.uint8
    error = np.abs(after.astype(int) - before)
    assert error.mean() < 2.5
    nearest = [int(np.abs(before.astype(int) - f).mean(axis=(1, 2, 3)).argmin()) for f in after.astype(int)]
    assert nearest == list(range(shape[0]))


def test_a_better_quality_is_larger_and_nearer() -> None:
    before = frames(4, 32, 32, seed=1)
    sizes, errors = [], []
    for quality in (30, 70, 95):
        sheet = encode_sheet(before, quality)
        sizes.append(len(sheet))
        errors.append(np.abs(decode_sheet(sheet, 4).astype(int) - before).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("quality", [30, 75, 90, 95, 100])
@pytest.mark.parametrize("size", [16, 64, 112, 224])
def test_noise_is_kept_at_any_size_and_quality(size: int, quality: int) -> None:
    before = np.random.default_rng(size).integers(0, 256, (8, size, size, 3), np.uint8)
    after = decode_sheet(encode_sheet(before, quality), 8)
    assert np.abs(after.astype(int) - before).mean() < (80 if quality < 50 else 45)


def test_colours_keep_their_place() -> None:
    before = np.zeros((2, 16, 16, 3), np.uint8)
    before[0, :, :, 0], before[1, :, :, 2] = 200, 200
    after = decode_sheet(encode_sheet(before, 90), 2).astype(int)
    assert after[0, ..., 0].mean() > 180 > 30 > after[0, ..., 2].mean()
    assert after[1, ..., 2].mean() > 180 > 30 > after[1, ..., 0].mean()


@pytest.mark.parametrize("what", ["text", "cut", "other number", "empty"])
def test_what_is_no_sheet_is_an_error(what: str) -> None:
    sheet = encode_sheet(frames(4, 24, 24), 90)
    broken = {"text": b"not a picture", "cut": sheet[: len(sheet) // 2], "other number": sheet, "empty": b""}[
        what
    ]
    with pytest.raises(CorruptStoreError, match="sheet"):
        decode_sheet(broken, 5)
