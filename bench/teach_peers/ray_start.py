"""A Ray of the contender's own, on this machine alone: never one that somebody else runs."""

from __future__ import annotations

import ray

_STORE_BYTES = 2 << 30


def start_ray(num_cpus: int = 2) -> None:
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=num_cpus,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
    )
