"""What a frozen network says of a clip is computed once a process, and remembered.

A student whose image network stays as it is sees the same clips in every epoch, and so does the next student of the
same network: of another fold, seed or loss. What is remembered goes by the network's weights and the clip's own values,
so it does not matter who asks; and a clip is computed by itself, so it does not matter beside which others.

Shapes: N clips, T frames, C channels, H height, W width, B features of a frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from schemas.arrays import Float32

MOST_BYTES = 1 << 30
"""What is remembered at most, some 26,000 clips of 8 frames of EfficientNet-Lite0; others are computed each time."""

_remembered: dict[bytes, Float32] = {}
_size = 0


def remembered(
    network: Callable[[torch.Tensor], torch.Tensor], digest: str, clips_NTCHW: torch.Tensor
) -> torch.Tensor:
    """What ``network`` (frames (T, C, H, W) to (T, B)) says of clips; float32 (N, T, B), on the CPU, as they must be.

    ``digest`` names its weights.
    """
    how = f"{digest}{tuple(clips_NTCHW.shape[1:])}{torch.is_autocast_enabled('cpu')}".encode()
    return torch.from_numpy(np.stack([_of_clip(network, how, clip_TCHW) for clip_TCHW in clips_NTCHW]))


def _of_clip(network: Callable[[torch.Tensor], torch.Tensor], how: bytes, clip_TCHW: torch.Tensor) -> Float32:
    global _size
    values = clip_TCHW.detach().permute(0, 2, 3, 1).contiguous().numpy()  # as frames lie: nothing is moved
    key = hashlib.blake2b(values.data, digest_size=16, key=hashlib.blake2b(how).digest()).digest()
    found = _remembered.get(key)
    if found is None:
        with torch.no_grad():
            found = np.array(
                network(clip_TCHW).float().numpy()
            )  # its own memory, where it was a part of more
        if _size + found.nbytes <= MOST_BYTES:
            _remembered[key] = found
            _size += found.nbytes
    return found


def forget() -> None:
    """Drop all that is remembered."""
    global _size
    _remembered.clear()
    _size = 0
