"""The training loop: pure in (seed, data), so that a run that was killed and resumed ends at the same weights.

All that is drawn at a step (order, augmentation, dropout) follows from the seed and the step's number; the learning
rate follows from the step. What a checkpoint holds is the step, the weights and the state of the optimizer, and
what was measured.

Phases: the epochs asked for, and then, from the best weights, a few that sharpen the student where it is right and
flatten it where it is wrong. Both are epochs of one count; the learning rate of the second stays low.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.distill.checkpoint import (
    load_model,
    newest,
    optimizer_tensors,
    restore_optimizer,
    save,
    save_model,
)
from pipeline.distill.judge import judge
from pipeline.distill.loader import Augmentation, Batch, Loader
from pipeline.distill.objective import distillation_loss, sharpening_loss
from pipeline.distill.order import num_steps
from pipeline.distill.ranks import ALONE, Ranks
from pipeline.distill.stretches import one_of_each
from pipeline.models.inputs import to_input, to_logits
from schemas.arrays import I64, Bools
from schemas.errors import ModelError
from schemas.model import InputSpec
from schemas.student import TrainSpec

WARMUP_SHARE = 0.1
FINAL_RATE = 0.1
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class EpochRecord:
    """What was measured after an epoch. ``val_loss`` is the loss of training on held-out clips; accuracies are
    shares of the held-out clips whose label (nan where none has one) or whose teacher's first class is the
    student's."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_agreement: float
    seconds: float


@dataclass(frozen=True)
class TrainProgress:
    """Where a run is. ``last`` is None in the first epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    last: EpochRecord | None


@dataclass
class TrainState:
    """What a checkpoint says beside the tensors."""

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = -1
    main_epochs: int = 0
    train_loss_sum: float = 0.0
    seconds: float = 0.0
    clips: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON, in which what is not known is null."""
        body = asdict(self)
        for record in body["history"]:
            record |= {name: None for name, value in record.items() if value != value}
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> TrainState:
        history = [_record(record) for record in body["history"]]
        return cls(**{**body, "history": history})


def _record(body: Mapping[str, Any]) -> EpochRecord:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in body.items()}
    return EpochRecord(**known)


OnTrainProgress = Callable[[TrainProgress], None]


class Training:
    """One run. ``work`` is the folder of its checkpoints; what is there is gone on with.

    ``train_R`` and ``val_R`` say which rows are learnt from, and which judge the epochs. With ``stretch_R``, the
    stretch of each row (`pipeline.distill.stretches`), an epoch shows one clip of each stretch, and not all.
    """

    def __init__(
        self,
        model: nn.Module,
        input_spec: InputSpec,
        spec: TrainSpec,
        loader: Loader,
        train_R: Bools,
        val_R: Bools,
        work: Path,
        *,
        device: torch.device,
        augment: Augmentation,
        on_progress: OnTrainProgress | None = None,
        ranks: Ranks = ALONE,
        stretch_R: I64 | None = None,
    ) -> None:
        self._ranks, self._together = ranks, ranks.together(model)
        self._model, self._input, self._spec, self._loader, self._work = model, input_spec, spec, loader, work
        self._train_R, self._val_R, self._device, self._augment = train_R, val_R, device, augment
        self._on_progress = on_progress
        self._stretch_R = stretch_R
        self._steps = num_steps(int(self._shown(0).sum()), spec.batch_size)
        self._optimizer = _optimizer(model, spec)
        self._state = TrainState(main_epochs=spec.epochs)
        self._step = 0

    def run(self) -> TrainState:
        """Train to the end; the model then holds the best weights (or the last ones of the final phase)."""
        self._resume()
        while (epoch := self._step // self._steps) < self._state.main_epochs + self._spec.final_epochs:
            if epoch == self._state.main_epochs and self._step % self._steps == 0:
                self._load_best()
            self._epoch(epoch)
        if not self._spec.final_epochs:
            self._load_best()
        return self._state

    # ------------------------------------------------------------------------------------------------ steps

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        spec, skip = self._spec, self._step % self._steps
        saved_at = started
        self._model.train()
        batches = self._loader.epoch(
            self._shown(epoch),
            seed=spec.seed,
            epoch=epoch,
            batch_size=spec.batch_size,
            augment=self._augment,
            skip_steps=skip,
        )
        loss = math.nan
        for batch in batches:
            loss = self._one_step(batch, final=epoch >= self._state.main_epochs)
            self._step += 1
            self._state.train_loss_sum += loss
            self._state.clips += len(batch.label_N)
            self._tell(epoch, loss)
            if time.perf_counter() - saved_at > CHECKPOINT_SECONDS and self._step % self._steps:
                self._save()
                saved_at = time.perf_counter()
        self._state.seconds += time.perf_counter() - started
        self._judge(epoch, time.perf_counter() - started)
        self._save()
        self._tell(epoch, loss)

    def _shown(self, epoch: int) -> Bools:
        """The rows of an epoch, equally many in each."""
        if self._stretch_R is None:
            return self._train_R
        return one_of_each(self._stretch_R, self._train_R, seed=self._spec.seed, epoch=epoch)

    def _one_step(self, batch: Batch, *, final: bool) -> float:
        spec = self._spec
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, self._steps, self._state.main_epochs, spec)
        # Dropout of this step and rank, whatever came before.
        torch.manual_seed((self._ranks.rank << 48) + spec.seed * 1_000_003 + self._step)
        x = to_input(torch.from_numpy(batch.frames_NTHWC).to(self._device), self._input)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
            output = self._together(x)
        logits_NK = to_logits(output, len(batch.label_N), batch.frames_NTHWC.shape[1], self._input)
        loss = (sharpening_loss if final else distillation_loss)(logits_NK, batch, spec).mean()
        value = self._ranks.mean(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss of step {self._step} is {value}: a lower --learning-rate, or --precision fp32, may help; "
                "the last checkpoint stands"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), spec.clip_norm)
        self._optimizer.step()
        return value

    # ------------------------------------------------------------------------------------------------ epochs

    def _judge(self, epoch: int, seconds: float) -> None:
        state, spec = self._state, self._spec
        found = None
        if self._ranks.is_first:
            found = judge(self._model, self._input, self._loader, self._val_R, spec, self._device)
        loss, accuracy, agreement = self._ranks.told(found)
        train_loss = state.train_loss_sum / self._steps
        state.train_loss_sum = 0.0
        record = EpochRecord(epoch, train_loss, loss, accuracy, agreement, seconds)
        state.history.append(record)
        if epoch >= state.main_epochs:
            return
        if self._is_better(loss):
            state.best_epoch = epoch
            if self._ranks.is_first:
                save_model(self._best_file(epoch), self._model)
        elif spec.patience is not None and epoch - state.best_epoch >= spec.patience:
            state.main_epochs = epoch + 1

    def _is_better(self, loss: float) -> bool:
        """Than the best so far. Without held-out clips the newest is; what is no number never is."""
        if self._state.best_epoch < 0 or not self._val_R.any():
            return True
        best = self._state.history[self._state.best_epoch].val_loss
        return loss < best or (math.isnan(best) and not math.isnan(loss))

    def _best_file(self, epoch: int) -> Path:
        return self._work / f"best-{epoch}.safetensors"

    def _load_best(self) -> None:
        path = self._best_file(self._state.best_epoch)
        best = self._ranks.told(path.read_bytes() if self._ranks.is_first else None)
        load_model(best, self._model)
        self._optimizer.state.clear()

    # ------------------------------------------------------------------------------------------------ checkpoints

    def _save(self) -> None:
        if not self._ranks.is_first:
            return
        tensors = {f"model.{k}": v for k, v in self._model.state_dict().items()}
        tensors |= optimizer_tensors(self._model, self._optimizer)
        save(self._work, self._step, tensors, {"state": self._state.to_json()})
        for path in self._work.glob(
            "best-*.safetensors"
        ):  # only now: the checkpoint before meant another one
            if path != self._best_file(self._state.best_epoch):
                path.unlink()

    def _resume(self) -> None:
        found = self._ranks.told(newest(self._work) if self._ranks.is_first else None)
        if found is None:
            return
        tensors = found.tensors
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self._model.load_state_dict(weights)
        restore_optimizer(self._model, self._optimizer, tensors)
        self._state, self._step = TrainState.from_json(found.about["state"]), found.step

    def _tell(self, epoch: int, loss: float) -> None:
        if self._on_progress is not None:
            history = self._state.history
            epochs = self._state.main_epochs + self._spec.final_epochs
            self._on_progress(
                TrainProgress(
                    epoch, epochs, self._step, epochs * self._steps, loss, history[-1] if history else None
                )
            )


def learning_rate(step: int, steps_per_epoch: int, main_epochs: int, spec: TrainSpec) -> float:
    """Of a step: a linear rise over the first tenth, half a cosine down to 0, and a low one in the final phase.

    The cosine is that of the epochs asked for, whether or not they were cut short.
    """
    if step >= main_epochs * steps_per_epoch:
        return FINAL_RATE * spec.learning_rate
    total = spec.epochs * steps_per_epoch
    warmup = max(1.0, WARMUP_SHARE * total)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    return 0.5 * spec.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def _optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.learning_rate)
