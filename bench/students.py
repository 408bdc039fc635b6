"""The students that go by a name: parameters, operations of a clip, and clips a second in training and use.

    python -m bench.students [--threads N] [--device cuda] [--frames 8] [--size 64]

Operations are multiplications and additions of convolutions and matrices, of one clip forward. Speeds
are medians of five rounds in which the students take turns; no frames are read or decoded."""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.inputs import to_input
from pipeline.models.memory import keep_freed_memory
from pipeline.models.student import build_student, for_classes
from schemas.errors import ModelError
from schemas.student import STUDENTS

CLASSES = tuple(f"class {i}" for i in range(10))
ROUNDS, STEPS = 5, 4


def timed(step: object, device: torch.device) -> float:
    """Seconds of one call, over a few."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()  # type: ignore[operator]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / STEPS


class Contender:
    """One student, on random frames."""

    def __init__(self, name: str, frames: int, size: int, batch: int, device: torch.device) -> None:
        ref = for_classes(STUDENTS[name], len(CLASSES), CLASSES)
        self.model = build_student(ref, (frames, size, size), seed=0, device=device)
        self.batch = batch
        shape = (batch, frames, size, size, 3)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.x = to_input(pixels, ref.input)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            self.model.eval()(self.x)
        self.operations = counter.get_total_flops() / batch
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def train(self) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()
        self.optimizer.step()

    def use(self) -> None:
        self.model.eval()
        with torch.inference_mode():
            self.model(self.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = torch.device(args.device)
    contenders = {}
    for name in STUDENTS:
        try:
            contenders[name] = Contender(name, args.frames, args.size, args.batch, device)
        except ModelError as e:
            print(f"{name}: left out: {e}")
    seconds: dict[tuple[str, str], list[float]] = {}
    for step in range(ROUNDS + 1):
        for name, c in contenders.items():
            for what, call in (("train", c.train), ("use", c.use)):
                took = timed(call, device)
                if step:  # the first round warms up
                    seconds.setdefault((name, what), []).append(took)
    print(
        f"{args.frames} frames of {args.size} x {args.size}, batches of {args.batch}, {device}, {args.threads} threads"
    )
    print(f"{'student':10s} {'parameters':>11s} {'Mops/clip':>10s} {'training':>10s} {'use':>10s}   clips/s")
    for name, c in contenders.items():
        train, use = (c.batch / statistics.median(seconds[name, what]) for what in ("train", "use"))
        print(f"{name:10s} {c.parameters:11,d} {c.operations / 1e6:10.1f} {train:10.1f} {use:10.1f}")


if __name__ == "__main__":
    main()
