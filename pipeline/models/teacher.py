"""The teacher at work: decoded clips in, float32 logits out.

Frames go to the device as 8-bit integers and are normalised there. Lower precision is autocast over float32
weights, not a cast of the model: on a CPU both were equally fast (within 5 %), and operators that have no
low-precision kernel (avg_pool3d on a CPU, for one) or that lose too much (softmax) stay in float32. Where a
CPU has no bf16 instructions (AMX, AVX512-BF16) bf16 is slower than fp32. 'fp32' means IEEE float32: TF32
convolutions are switched off.

Repeatability: batches depend on the order of the clips alone, never on time. The same clips, seed, batch
size, device and libraries give the same bits. A batch that did not fit is halved, which moves logits by
rounding and, with several passes, draws other masks; it is logged.

Shape suffixes: N clips, V views, P passes, S = V*P samples, T frames, H height, W width, C colours,
K classes.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch

from pipeline.models.dropout import activate_dropout, derived_seed
from pipeline.models.foreign import foreign_code, is_out_of_memory
from pipeline.models.inputs import to_channels_last, to_input, to_logits
from pipeline.models.resolve import build
from schemas.errors import ModelError
from schemas.targets import TargetSpec

_LOG = logging.getLogger(__name__)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_STOCHASTIC_TRIES = 8


class Teacher:
    """Holds the teacher of a resolved ``spec`` on a device and scores clips with it.

    Parameters
    ----------
    spec
        What to compute; its teacher must be resolved.
    device
        'auto' (CUDA where there is one, else the CPU), or any torch device.
    batch_size
        Clips in one forward pass; each counts ``num_views`` inputs (times ``num_frames`` for the layout
        'frames').
    compile
        Compile with torch.compile: slow to start, and the last batch is filled up to keep one shape. Logits
        move by rounding, and MC dropout draws other masks.
    num_threads
        CPU threads of torch, for the whole process; left as they are where not given.

    Raises
    ------
    ModelError
        If the teacher is not resolved, cannot be built, or is to make several passes without active dropout.
    """

    def __init__(
        self,
        spec: TargetSpec,
        *,
        device: str = "auto",
        batch_size: int = 8,
        compile: bool = False,
        num_threads: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.spec = spec
        self.device = pick_device(device)
        self.batch_size = batch_size
        """Clips in one forward pass; smaller than asked for after a batch did not fit."""
        self.seconds = 0.0
        """Wall seconds spent in `logits`: copying to the device and computing there."""
        self._model = build(spec.teacher, self.device)
        self._num_classes = spec.teacher.num_classes or 0
        self._pad = compile
        if spec.channels_last:
            to_channels_last(self._model)
        if spec.passes > 1:
            self._require_dropout()
        self._run = torch.compile(self._model) if compile else self._model

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes

    @property
    def num_samples(self) -> int:
        """S: views times passes."""
        return self.spec.num_samples

    def logits(self, clips_NVTHWC: Sequence[np.ndarray] | np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Logits (N, S, K), float32, of N clips.

        Sample ``v * passes + p`` is view v in pass p. The samples of MC dropout depend on ``spec.seed``,
        ``seed``, the pass and the place in ``clips_NVTHWC``: give each shard a seed of its own, and the same
        one when it is computed again.

        Parameters
        ----------
        clips_NVTHWC
            uint8 RGB arrays (V, T, H, W, 3), one a clip, or one array (N, V, T, H, W, 3).
        seed
            Seed of this call, for several passes.

        Raises
        ------
        ValueError
            If a clip has another shape or type than the spec says.
        ModelError
            If the model fails, one clip alone does not fit in memory, or logits are not finite.
        """
        for index, clip in enumerate(clips_NVTHWC):
            self._check_clip(index, clip)
        started = time.perf_counter()
        parts_NSK: list[torch.Tensor] = []
        first = 0
        while first < len(clips_NVTHWC):
            batch = clips_NVTHWC[first : first + self.batch_size]
            too_large = None
            try:
                parts_NSK.append(self._forward(batch, first, seed))
            except RuntimeError as e:
                if not is_out_of_memory(e):
                    raise
                too_large = (str(e).strip().splitlines() or ["no memory left"])[0]
            if too_large is None:
                first += len(batch)
            else:  # outside the handler, where the failed batch's tensors are free again
                self._halve(len(batch), too_large)
        empty = np.empty((0, self.num_samples, self._num_classes), np.float32)
        logits_NSK = np.concatenate([empty, *(p.cpu().numpy() for p in parts_NSK)])
        self.seconds += time.perf_counter() - started
        finite_N = np.isfinite(logits_NSK).all(axis=(1, 2))
        if not finite_N.all():
            bad = np.flatnonzero(~finite_N)
            raise ModelError(
                f"{self.spec.teacher.factory!r} in {self.spec.precision} gave logits that are not finite for "
                f"{len(bad)} of {len(logits_NSK)} clips, the first at index {bad[0]}"
                + (": fp16 overflows beyond 65504, try bf16" if self.spec.precision == "fp16" else ""),
                clip_index=int(bad[0]),
            )
        return logits_NSK

    def _forward(self, batch: Sequence[np.ndarray] | np.ndarray, first: int, seed: int) -> torch.Tensor:
        """Float32 logits (n, S, K) of one batch, on the device; ``first`` is its place among the clips."""
        spec, num = self.spec, len(batch)
        rows = self.batch_size if self._pad else num
        frames_BTHWC = self._to_device(batch, rows).flatten(0, 1)
        passes_BK = []
        with ExitStack() as stack:
            for context in self._contexts():
                stack.enter_context(context)
            x = to_input(frames_BTHWC, spec.teacher.input, channels_last=spec.channels_last)
            if spec.passes > 1:
                devices = [self.device] if self.device.type == "cuda" else []
                stack.enter_context(torch.random.fork_rng(devices))
            for index in range(spec.passes):
                if spec.passes > 1:
                    torch.manual_seed(derived_seed(spec.seed, seed, first, index))
                output = self._call(x)
                passes_BK.append(
                    to_logits(output, len(frames_BTHWC), spec.clip.num_frames, spec.teacher.input)
                )
        samples_BPK = torch.stack(passes_BK, dim=1)
        if samples_BPK.shape[2] != self._num_classes:
            raise ModelError(
                f"{spec.teacher.factory!r} gave {samples_BPK.shape[2]} logits for the clips from index "
                f"{first}, the spec says {self._num_classes}"
            )
        return samples_BPK.reshape(rows, self.num_samples, self._num_classes)[:num]

    def _call(self, x: torch.Tensor) -> object:
        doing = f"the model {self.spec.teacher.factory!r} failed on an input {tuple(x.shape)}"
        with foreign_code(doing, "try without compile" if self._pad else "", memory_errors_pass=True):
            return self._run(x)

    def _to_device(self, batch: Sequence[np.ndarray] | np.ndarray, rows: int) -> torch.Tensor:
        """uint8 (rows, V, T, H, W, 3); the last clip is repeated to fill up."""
        on_cuda = self.device.type == "cuda"
        frames = torch.empty((rows, *batch[0].shape), dtype=torch.uint8, pin_memory=on_cuda)
        view = frames.numpy()
        for row in range(rows):
            view[row] = batch[min(row, len(batch) - 1)]
        return frames.to(self.device, non_blocking=on_cuda)

    def _contexts(self) -> list[AbstractContextManager[object]]:
        contexts: list[AbstractContextManager[object]] = [torch.inference_mode()]
        if self.device.type == "cuda":
            contexts.append(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        if self.spec.precision in _AUTOCAST:
            contexts.append(torch.autocast(self.device.type, _AUTOCAST[self.spec.precision]))
        return contexts

    def _halve(self, failed: int, message: str) -> None:
        gc.collect()  # the failed batch may hang in a cycle of its traceback
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if failed == 1:
            raise self._too_large(message)
        self.batch_size = failed // 2
        _LOG.warning(
            "%d clips did not fit on %s, going on with %d: %s", failed, self.device, self.batch_size, message
        )

    def _too_large(self, message: str) -> ModelError:
        clip, view = self.spec.clip, self.spec.view
        return ModelError(
            f"one clip of {view.num_views} views, {clip.num_frames} frames and {view.width}x{view.height} "
            f"pixels does not fit in the memory of {self.device} with {self.spec.teacher.factory!r} in "
            f"{self.spec.precision}: {message}"
        )

    def _check_clip(self, index: int, clip: np.ndarray) -> None:
        spec = self.spec
        shape = (spec.view.num_views, spec.clip.num_frames, spec.view.height, spec.view.width, 3)
        if clip.dtype != np.uint8 or clip.shape != shape:
            raise ValueError(f"clip {index} must be uint8 {shape}, it is {clip.dtype} {clip.shape}")

    def _require_dropout(self) -> None:
        """Activate dropout, and see that it changes the logits of a synthetic clip."""
        spec = self.spec
        if activate_dropout(self._model):
            self._run = self._model
            shape = (1, spec.view.num_views, spec.clip.num_frames, spec.view.height, spec.view.width, 3)
            clip = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            for seed in range(_STOCHASTIC_TRIES):
                try:
                    logits_SK = self._forward(clip, 0, seed)[0]
                except torch.OutOfMemoryError as e:
                    raise self._too_large(str(e)) from e
                logits_VPK = logits_SK.unflatten(0, (spec.view.num_views, spec.passes))
                if bool((logits_VPK != logits_VPK[:, :1]).any()):
                    return
        raise ModelError(
            f"{spec.passes} passes need dropout, and {spec.teacher.factory!r} has no dropout layer that "
            "changes its logits: set passes to 1, or give the factory a dropout above 0"
        )


def pick_device(name: str) -> torch.device:
    """The torch device called ``name``; 'auto' is CUDA where there is one, else the CPU.

    Raises `ModelError` for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ModelError(f"there is no device called {name!r}: 'auto', 'cpu', 'cuda', 'cuda:1', …") from e
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"{name!r} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )
    return device
