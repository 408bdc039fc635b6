"""Distil on several workers, by Ray Train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.distill import DistilOptions, DistilReport, distil
from jobs.distilling.inputs import fitting_inputs
from pipeline.distill.loop import OnTrainProgress
from pipeline.distill.ranks import Ranks
from pipeline.models.memory import keep_freed_memory
from schemas.cluster import RayOptions
from schemas.student import TrainSpec


def distil_on_workers(
    targets: Sequence[str],
    out: str,
    spec: TrainSpec,
    options: DistilOptions,
    cluster: RayOptions,
    *,
    on_progress: OnTrainProgress | None = None,
) -> DistilReport:
    """`jobs.distill.distil` by as many workers as ``cluster`` says at most, each with a part of every batch.

    What every worker reads and the first one writes must be where all nodes reach it.

    Raises
    ------
    SettingsError, ModelError, RetryableError
        As `distil` does; or if so many workers do not fit, or keep dying.
    """
    from cluster.train import train_on_ray

    workers = cluster.worker_range[1] if cluster.worker_range else 1
    fitting_inputs(targets, spec, options.frames, workers)  # what does not fit is said before Ray is started
    if options.num_threads is None:
        options = replace(options, num_threads=1)
    arguments: dict[str, Any] = {"targets": list(targets), "out": out, "spec": spec, "options": options}
    report: DistilReport = train_on_ray(_in_worker, arguments, cluster, workers, on_progress)
    return report


def _in_worker(ranks: Ranks, on_progress: OnTrainProgress, **arguments: Any) -> DistilReport:
    keep_freed_memory()
    return distil(**arguments, on_progress=on_progress, ranks=ranks)
