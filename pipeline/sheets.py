"""Sheets: the frames of a clip as one JPEG, the first on top.

One image a clip and not one a frame: half of a small JPEG is tables, and half of the time to decode it is starting to.
Colours are not subsampled, for at these sizes a coloured edge is most of an object.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from schemas.errors import CorruptStoreError

Frames = NDArray[np.uint8]


def encode_sheet(frames_THWC: Frames, quality: int) -> bytes:
    """One JPEG of RGB frames (T, H, W, 3)."""
    t, h, w, c = frames_THWC.shape
    image = Image.fromarray(np.ascontiguousarray(frames_THWC).reshape(t * h, w, c))
    try:
        return _jpeg(image, quality, optimize=True)
    except (
        OSError
    ):  # Pillow writes a file of optimized tables in one go, into room that grain does not fit into
        return _jpeg(image, quality, optimize=False)


def _jpeg(image: Image.Image, quality: int, *, optimize: bool) -> bytes:
    """The pixels do not hang on ``optimize``, which makes a file some 7 % smaller."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0, optimize=optimize)
    return out.getvalue()


def decode_sheet(sheet: bytes, num_frames: int) -> Frames:
    """RGB frames (T, H, W, 3), ``num_frames`` of them.

    Raises
    ------
    CorruptStoreError
        If it is not a whole sheet of so many frames.
    """
    try:
        with Image.open(io.BytesIO(sheet), formats=("JPEG",)) as image:
            pixels_HWC = np.asarray(image)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as e:
        raise CorruptStoreError(f"a kept sheet of frames cannot be decoded: {e}") from e
    if pixels_HWC.ndim != 3 or pixels_HWC.shape[0] % num_frames:
        raise CorruptStoreError(f"a kept sheet of shape {pixels_HWC.shape} is not one of {num_frames} frames")
    return pixels_HWC.reshape(num_frames, -1, *pixels_HWC.shape[1:])
