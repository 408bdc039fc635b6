"""What a teach run would take of machines and money, from what a clip costs. Pure.

Decoding and the teacher go on at the same time, each on its own devices; so with GPUs there is a number of cores that
just keeps one busy, and with fewer the GPU waits. Starting, stragglers and preemptions come on top; with twenty shards
or more for each worker, stragglers and preemptions are less than a tenth by `bench.schedule_sim`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from jobs.words import duration, size
from schemas.prices import Prices

_FLEETS = (1, 8, 64)
_GB = 1e9


@dataclass(frozen=True)
class Fleet:
    """So many GPUs (0 where the teacher runs on cores) and cores, and the hours they would take."""

    gpus: int
    cores: int
    hours: float


@dataclass(frozen=True)
class Bill:
    """Hours are of one core and of one GPU, over all clips; ``decode_cores_a_gpu`` is None where there is no GPU. Money
    is None where its price was not given."""

    clips: int
    decode_core_hours: float
    teacher_core_hours: float
    teacher_gpu_hours: float
    decode_cores_a_gpu: float | None
    read_bytes: int
    stored_bytes: int
    fleets: tuple[Fleet, ...]
    cores_money: float | None
    gpus_money: float | None
    storage_money_a_month: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        decode = f"{_hours(self.decode_core_hours)} of a core to decode"
        if self.decode_cores_a_gpu is not None:
            ratio = f"{self.decode_cores_a_gpu:.1f} cores that decode keep one GPU busy"
            lines = [f"{decode} and {_hours(self.teacher_gpu_hours)} of a GPU: {ratio}"]
        else:
            lines = [f"{decode} and {_hours(self.teacher_core_hours)} for the teacher"]
        for f in self.fleets:
            gpus = f"{f.gpus} GPU{'s' * (f.gpus > 1)} and " if f.gpus else ""
            lines.append(f"  {gpus}{f.cores} core{'s' * (f.cores > 1)}: {_hours(f.hours)}")
        lines.append(f"{size(self.read_bytes)} to read, {size(self.stored_bytes)} to store")
        money = [
            f"{value:.2f} for {what}"
            for value, what in (
                (self.cores_money, "cores"),
                (self.gpus_money, "GPUs"),
                (self.storage_money_a_month, "storage, a month"),
            )
            if value is not None
        ]
        return "\n".join([*lines, *([", ".join(money) + ", by your prices"] if money else [])])


def bill(
    *,
    clips: int,
    decode_ms: float,
    teacher_ms: float,
    on_gpu: bool,
    read_bytes: int,
    stored_bytes: int,
    prices: Prices = Prices(),
) -> Bill:
    """``decode_ms`` a clip of one core; ``teacher_ms`` a clip of one GPU where ``on_gpu``, of one core else."""
    decode, teacher = clips * decode_ms / 3.6e6, clips * teacher_ms / 3.6e6
    ratio = decode_ms / teacher_ms if on_gpu and teacher_ms else None
    if ratio is None:
        fleets = tuple(Fleet(0, n, (decode + teacher) / n) for n in _FLEETS)
    else:
        fleets = tuple(_with_gpus(n, max(1, math.ceil(n * ratio)), decode, teacher) for n in _FLEETS)
    cores = decode if on_gpu else decode + teacher
    return Bill(
        clips=clips,
        decode_core_hours=decode,
        teacher_core_hours=0.0 if on_gpu else teacher,
        teacher_gpu_hours=teacher if on_gpu else 0.0,
        decode_cores_a_gpu=ratio,
        read_bytes=read_bytes,
        stored_bytes=stored_bytes,
        fleets=fleets,
        cores_money=_times(prices.core_hour, cores),
        gpus_money=_times(prices.gpu_hour, teacher) if on_gpu else None,
        storage_money_a_month=_times(prices.gb_month, stored_bytes / _GB),
    )


def _with_gpus(gpus: int, cores: int, decode: float, teacher: float) -> Fleet:
    return Fleet(gpus, cores, max(teacher / gpus, decode / cores))


def _hours(hours: float) -> str:
    return duration(hours * 3600)


def _times(price: float | None, amount: float) -> float | None:
    return None if price is None else price * amount
