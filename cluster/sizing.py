"""How many workers and decode actors, of which size. Pure arithmetic over what a cluster has.

On CPUs decoding and the teacher share the cores, and the operating system divides them better than any split made
beforehand: so a worker with one thread and a decode actor for each core, both claiming half of it. With GPUs each
worker gets its share of the node's cores for decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.cluster import RayOptions
from schemas.errors import SettingsError

_MOST_DECODERS = 16
_MOST_PROBERS = 4
_PROBER_CPUS = 0.5
"""Probing waits for storage more than it computes; and claims of whole cores leave small nodes no room for a worker."""
_CORES_A_GPU = 8.0
"""Where no GPU has come yet."""
_WORKER_BYTES = 0.7e9
"""About what a process holds that has loaded torch and a small teacher."""
_DECODER_BYTES = 0.15e9
_LEAST_CLAIM = 0.001
_RAY_UNITS = 10_000
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Node:
    """What one node offers, in Ray's units (memory and object store in bytes)."""

    cpus: float
    gpus: float
    memory: float
    object_store: float


@dataclass(frozen=True)
class Shape:
    """What one worker claims: a bundle for itself and one for each decode actor."""

    gpus: float
    cpus: float
    decoders: int
    cpus_per_decoder: float

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Ray refuses a bundle of nothing, so a claim of 0 is one of very little."""
        own = {"CPU": max(self.cpus, _LEAST_CLAIM)} | ({"GPU": self.gpus} if self.gpus else {})
        return [own] + [{"CPU": max(self.cpus_per_decoder, _LEAST_CLAIM)}] * self.decoders

    @property
    def total_cpus(self) -> float:
        return self.cpus + self.decoders * self.cpus_per_decoder

    def __str__(self) -> str:
        gpu = f"{self.gpus:g} GPU and " if self.gpus else ""
        actors = "a decode actor" if self.decoders == 1 else f"{self.decoders} decode actors"
        return f"{gpu}{self.cpus:g} CPU and {actors} of {self.cpus_per_decoder:g} CPU"


@dataclass(frozen=True)
class Size:
    """A run's size: the shape of its workers, the least and the most of them, and the threads of each on CPUs.
    ``spreads`` says that nodes that come later get workers too."""

    shape: Shape
    least: int
    most: int
    num_threads: int = 1
    spreads: bool = True


def choose(
    nodes: Sequence[Node],
    options: RayOptions,
    *,
    device: str,
    num_threads: int | None = None,
    decodes: bool = True,
    may_grow: bool = False,
) -> Size:
    """The size of a run on these nodes; what the options say stands. ``may_grow`` says that others may come.

    ``num_threads`` is what each worker's teacher was given to compute with on CPUs; ``decodes`` is false for work
    that opens files only to probe them: such a run has one small worker.

    Raises
    ------
    SettingsError
        If there is no GPU where one is asked for, or a certain one is.
    """
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    asked = f"--device {device}" if device.startswith("cuda") else ""
    if options.gpus_per_worker:
        asked = asked or f"--gpus-per-worker {options.gpus_per_worker:g}"
    if asked and not gpus and not may_grow:
        raise SettingsError(f"{asked}: the cluster has no GPU (and {cpus:g} CPUs)")
    if ":" in device:
        raise SettingsError(f"--device {device}: Ray gives each worker a GPU of its own; say --device cuda")
    if not decodes:
        return Size(_probe_shape(options, cpus), 1, 1, 1, spreads=False)
    per_worker = _or(options.gpus_per_worker, 1.0 if device != "cpu" and (gpus or asked) else 0.0)
    if per_worker:
        cores = (cpus / gpus if gpus else _CORES_A_GPU) * per_worker
        shape = _gpu_shape(options, per_worker, cores)
        threads = max(1, _floor(cores) - shape.decoders)
    else:
        threads = max(1, _floor(_or(options.cpus_per_worker, 1.0)))
        shape = _cpu_shape(options, num_threads or 1)
    least, _ = options.worker_range or (1, 1)
    return Size(shape, least, most_workers(nodes, shape, options), num_threads or threads)


def most_workers(nodes: Sequence[Node], shape: Shape, options: RayOptions) -> int:
    """The most workers of a shape: what the options say, else what these nodes have room for, and one at least."""
    if options.worker_range is not None:
        return options.worker_range[1]
    if shape.gpus:
        most = sum(_gpu_workers(n.gpus, shape.gpus) for n in nodes)
    else:
        most = _floor(sum(n.cpus for n in nodes) / max(shape.total_cpus, _LEAST_CLAIM))
    if nodes and all(n.memory < math.inf for n in nodes):
        most = min(most, sum(_floor(n.memory / worker_bytes(shape, options)) for n in nodes))
    return max(1, most)


def worker_bytes(shape: Shape, options: RayOptions) -> float:
    """About what a worker, its decode actors and its frames hold in memory."""
    return _WORKER_BYTES + shape.decoders * _DECODER_BYTES + (options.buffer_mb << 20)


def _gpu_workers(gpus: float, per_worker: float) -> int:
    """Workers on the GPUs of one node; a share of a GPU lies on one."""
    if per_worker < 1:
        return _floor(gpus) * _floor(1 / per_worker)
    return _floor(gpus / per_worker)


def _gpu_shape(options: RayOptions, gpus: float, cpus: float) -> Shape:
    """A whole core a decoder, but for one that is the worker's, where its share of the cores has so many.

    The worker itself claims next to nothing: its bundle has to lie where the GPU is, whatever lies there already.
    """
    own = _or(options.cpus_per_worker, _LEAST_CLAIM)
    room = max(cpus - max(own, min(1.0, cpus / 2)), _LEAST_CLAIM)
    each = options.cpus_per_decoder
    fit = _MOST_DECODERS if each == 0 else _floor(room / (each or 1.0))
    decoders = options.decoders or min(_MOST_DECODERS, max(1, fit))
    return Shape(gpus, own, decoders, _or(each, _part(min(1.0, room / decoders))))


def _cpu_shape(options: RayOptions, num_threads: int) -> Shape:
    """Half of what the teacher's threads could use for the worker, and half for its decode actors."""
    decoders, half = options.decoders or 1, 0.5 * num_threads
    each = _or(options.cpus_per_decoder, _part(half / decoders))
    return Shape(0.0, _or(options.cpus_per_worker, half), decoders, each)


def _probe_shape(options: RayOptions, cpus: float) -> Shape:
    each = options.cpus_per_decoder
    fit = _floor((cpus - _LEAST_CLAIM) / each) if each else _floor(cpus)
    decoders = options.decoders or max(1, min(_MOST_PROBERS, fit))
    share = max(_LEAST_CLAIM, min(_PROBER_CPUS, (cpus - _LEAST_CLAIM) / decoders))
    return Shape(0.0, _LEAST_CLAIM, decoders, _or(each, _part(share)))


def shortage(nodes: Sequence[Node], size: Size, *, buffer_bytes: int) -> str:
    """Why the cluster cannot hold the least number of workers, with the numbers; empty where it can."""
    shape, least = size.shape, size.least
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    memory, store = sum(n.memory for n in nodes), sum(n.object_store for n in nodes)
    wants = f"{least} workers ({shape} each)" if least > 1 else f"a worker ({shape})"
    checks = [
        ("CPUs", least * shape.total_cpus, cpus, 1.0),
        ("GPUs", least * shape.gpus, gpus, 1.0),
        ("GB of memory", least * (_WORKER_BYTES + shape.decoders * _DECODER_BYTES), memory, 1e9),
        ("GB of object store", least * buffer_bytes, store, 1e9),
    ]
    found = [
        f"{round(need / unit, 3):g} {name} where the cluster has {round(has / unit, 3):g}"
        for name, need, has, unit in checks
        if need > has * (1 + _ROUNDING)
    ]
    if not found and not any(n.cpus >= shape.cpus - _ROUNDING and n.gpus >= shape.gpus for n in nodes):
        largest = max(nodes, key=lambda n: (n.gpus, n.cpus), default=Node(0, 0, 0, 0))
        found = [
            f"one node with all of it, and the largest has {largest.gpus:g} GPU and {largest.cpus:g} CPU"
        ]
    most_cpus = max((n.cpus for n in nodes), default=0.0)
    if not found and most_cpus < shape.cpus_per_decoder - _ROUNDING:
        found = [f"one node for each decode actor, and the largest has {most_cpus:g} CPU"]
    return f"{wants} want {'; '.join(found)}" if found else ""


def _part(cpus: float) -> float:
    """Rounded down to what Ray counts in, or the parts of a whole would come to more than it."""
    return _floor(cpus * _RAY_UNITS) / _RAY_UNITS


def _floor(value: float) -> int:
    return math.floor(value + _ROUNDING)


def _or(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
