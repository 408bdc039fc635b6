"""How a run is spread over Ray. It changes no number in a store, beyond the rounding of more or fewer threads."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from schemas.spec import Spec

LOCAL, RUNNING = "local", "auto"

_WAIT_SECONDS = 60.0
_WORKERS = re.compile(r"(\d+)(?::(\d+))?")


class RayOptions(Spec):
    """Where Ray is, and how many of what it is to run."""

    ray: str | None = None
    """'local' starts a Ray of the run's own and ends it after; 'auto' joins the cluster that RAY_ADDRESS names or this
    machine belongs to; else the address of one. Where not given: in a submitted job its cluster, 'local' elsewhere."""
    workers: str | None = None
    """Workers, as N or LEAST:MOST: the run begins when the least are ready and takes in others as they become so. Where
    not given: one a GPU, or one a CPU core where there are no GPUs, as far as memory goes."""
    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs a worker; fractions share one. Where not given: 1 where there are GPUs, unless the device is 'cpu'."""
    cpus_per_worker: float | None = Field(None, ge=0)
    """CPUs a worker claims beside its decoders'."""
    decoders: int | None = Field(None, ge=1, le=256)
    """Decode actors a worker. Where not given: one on CPUs; with GPUs as many as its share of the cores allows."""
    cpus_per_decoder: float | None = Field(None, ge=0)
    """CPUs a decode actor claims."""
    buffer_mb: int = Field(256, ge=8)
    """Megabytes of decoded frames that may wait for each worker."""
    decoder_memory_mb: int = Field(3072, ge=128)
    """Megabytes that a decode actor may hold before it is killed."""
    stall_seconds: float = Field(120.0, gt=0)
    """Seconds without any progress after which a decode actor is killed; five times that while it waits for storage."""
    worker_stall_seconds: float = Field(900.0, gt=0)
    """Seconds without any progress after which a worker is killed."""
    shard_attempts: int = Field(3, ge=1)
    """Workers that a shard may cost before it is given up and reported."""
    wait_seconds: float | None = Field(None, ge=0)
    """Seconds to wait until the least number of workers found a place; 60 where not given. Where given, a cluster that
    has not enough is waited for and not refused: it may add nodes by itself."""

    @field_validator("workers")
    @classmethod
    def _workers_are_a_range(cls, value: str | None) -> str | None:
        if value is None:
            return None
        match = _WORKERS.fullmatch(value)
        if match is None or int(match[1]) < 1 or (match[2] is not None and int(match[2]) < int(match[1])):
            raise ValueError(f"workers must be N or LEAST:MOST with 1 <= LEAST <= MOST, got {value!r}")
        return value

    @property
    def patience(self) -> float:
        """Seconds to wait for places."""
        return _WAIT_SECONDS if self.wait_seconds is None else self.wait_seconds

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """Least and most workers; None where not given."""
        if self.workers is None:
            return None
        least, _, most = self.workers.partition(":")
        return int(least), int(most or least)
