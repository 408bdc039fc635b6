"""What a student says of held-out clips, and how far that is from teacher and labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.distill.loader import Batch, Loader
from pipeline.distill.objective import distillation_loss, first_of
from pipeline.models.inputs import to_input, to_logits
from schemas.arrays import I64, Bools
from schemas.model import InputSpec
from schemas.student import TrainSpec


def judge(
    model: nn.Module,
    input_spec: InputSpec,
    loader: Loader,
    rows_R: Bools,
    spec: TrainSpec,
    device: torch.device,
) -> tuple[float, float, float]:
    """Mean loss as in training, accuracy against labels and agreement with the teacher over rows; nan where there are
    none."""
    total = named = right = agreed = count = 0.0
    for _, batch, logits_NK in predictions(model, input_spec, loader, rows_R, spec, device):
        loss_N = distillation_loss(logits_NK, batch, spec)
        total += float(loss_N.sum())
        count += len(loss_N)
        first_N = logits_NK.argmax(1).cpu().numpy()
        has = batch.label_N >= 0
        named += int(has.sum())
        right += int((first_N == batch.label_N)[has].sum())
        agreed += int((first_N == first_of(batch)).sum())
    nan = float("nan")
    if not count:
        return nan, nan, nan
    return total / count, right / named if named else nan, agreed / count


def predictions(
    model: nn.Module,
    input_spec: InputSpec,
    loader: Loader,
    rows_R: Bools,
    spec: TrainSpec,
    device: torch.device,
    batch_size: int = 64,
) -> Iterator[tuple[I64, Batch, Tensor]]:
    """Rows in order, in batches: their numbers, the batch, and the model's logits (n, K) in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for rows_N, batch in loader.in_order(rows_R, batch_size):
                x = to_input(torch.from_numpy(batch.frames_NTHWC).to(device), input_spec)
                with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
                    output = model(x)
                n, t = batch.frames_NTHWC.shape[:2]
                yield rows_N, batch, to_logits(output, n, t, input_spec)
    finally:
        model.train(was_training)
