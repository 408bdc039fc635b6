"""From decoded frames to what a model takes, and from what it gives back to logits.

Pure tensor arithmetic on whatever device the frames are. Frames stay 8 bit until they are there.

Shape suffixes: N clips, V views, T frames, H height, W width, C colours, B = N*V views in one batch, K
classes.
"""

from __future__ import annotations

import torch

from schemas.errors import ModelError
from schemas.model import InputSpec


def to_input(frames_BTHWC: torch.Tensor, spec: InputSpec, *, channels_last: bool = True) -> torch.Tensor:
    """Float32 input of the model, ``(x / scale - mean) / std``, in the layout of ``spec``.

    ``frames_BTHWC`` is uint8 (B, T, H, W, 3). The result is (B, 3, T, H, W) for 'NCTHW', (B, T, 3, H, W) for
    'NTCHW' and (B*T, 3, H, W) for 'frames'. With ``channels_last`` NCTHW is channels_last_3d in memory and
    frames channels_last, which is how frames lie already, so nothing is moved.
    """
    x_BTHWC = frames_BTHWC.to(torch.float32).div_(spec.scale)
    if any(spec.mean):
        x_BTHWC.sub_(x_BTHWC.new_tensor(spec.mean))
    if spec.std != (1.0, 1.0, 1.0):
        x_BTHWC.div_(x_BTHWC.new_tensor(spec.std))
    if spec.layout == "NCTHW":
        x = x_BTHWC.permute(0, 4, 1, 2, 3)
    elif spec.layout == "NTCHW":
        return x_BTHWC.permute(0, 1, 4, 2, 3).contiguous()
    else:
        x = x_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    return x if channels_last else x.contiguous()


def to_logits(output: object, num_views: int, num_frames: int, spec: InputSpec) -> torch.Tensor:
    """Float32 logits (B, K) of ``num_views`` views, from what the model returned for `to_input`'s result.

    For 'frames' the logits of a view's ``num_frames`` frames are averaged, in float32.

    Raises
    ------
    ModelError
        If the output is no floating (rows, K) tensor with one row for each input.
    """
    rows = num_views * (num_frames if spec.layout == "frames" else 1)
    if not isinstance(output, torch.Tensor):
        raise ModelError(
            f"the model must return one tensor of logits, it returned a {type(output).__name__}: "
            "wrap it in a module that picks the logits"
        )
    if output.dim() != 2 or output.shape[0] != rows or not output.is_floating_point():
        raise ModelError(
            f"the model must return logits ({rows}, K) for {rows} inputs in the layout {spec.layout!r}, "
            f"it returned {output.dtype} of shape {tuple(output.shape)}"
        )
    logits: torch.Tensor = output.to(torch.float32)
    if spec.layout == "frames":
        logits = logits.unflatten(0, (num_views, num_frames)).mean(1)
    return logits


def to_channels_last(model: torch.nn.Module) -> None:
    """Lay out the kernels of 2D and 3D convolutions with the channels innermost, in place."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
