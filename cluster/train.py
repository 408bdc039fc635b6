"""Training on several workers: Ray Train makes the processes and their group, and starts them again where one dies.

What is trained is none of its business: each worker calls a function with its `Ranks`. What the first one says
meanwhile (progress), returns or raises goes through an actor to the driver.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import ray

from cluster.session import connect
from pipeline.distill.ranks import Ranks
from schemas.cluster import RayOptions
from schemas.errors import LocumError, RetryableError, SettingsError

log = logging.getLogger("locum.train")

MAX_FAILURES = 3
"""So often all workers are started again, from the last checkpoint, before it is given up."""

_OBJECT_STORE_BYTES = 100 << 20
_SAY_SECONDS = 0.5

OnProgress = Callable[[Any], None]


class _Word:
    """What the first worker says."""

    def __init__(self) -> None:
        self._progress: list[Any] = []
        self._answer: tuple[str, Any] | None = None

    def say(self, progress: Any) -> None:
        self._progress.append(progress)

    def end(self, how: str, what: Any) -> None:
        self._answer = how, what

    def heard(self) -> list[Any]:
        said, self._progress = self._progress, []
        return said

    def answer(self) -> tuple[str, Any] | None:
        return self._answer


def train_on_ray(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    options: RayOptions,
    workers: int,
    on_progress: OnProgress | None = None,
) -> Any:
    """What ``function(ranks, on_progress, **arguments)`` returns in the first of so many workers, all of which call it.

    GPUs are used where each worker can have one.

    Raises
    ------
    LocumError
        As the function does.
    SettingsError
        If the workers do not fit.
    RetryableError
        If workers keep dying.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer
    except ImportError as e:
        raise SettingsError(f'several workers need the extra: pip install "locum[train]" ({e})') from e
    with connect(options, object_store_bytes=_OBJECT_STORE_BYTES), tempfile.TemporaryDirectory() as notes:
        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < workers:
            raise SettingsError(f"{workers} workers need a CPU each, there are {resources.get('CPU', 0):g}")
        use_gpu = resources.get("GPU", 0) >= workers and options.gpus_per_worker != 0
        word = ray.remote(num_cpus=0)(_Word).remote()
        trainer = TorchTrainer(
            _in_worker,
            train_loop_config={
                "function": function,
                "arguments": arguments,
                "word": word,
                "path": [os.getcwd(), *sys.path],
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(storage_path=notes, failure_config=FailureConfig(max_failures=MAX_FAILURES)),
        )
        failed: Exception | None = None
        with _passing_on(word, on_progress):
            try:
                trainer.fit()
            except (TrainingFailedError, ray.exceptions.RayError) as e:
                failed = e
        how, what = ray.get(word.answer.remote()) or ("nothing", None)
        if isinstance(what, LocumError):
            raise what
        if failed is not None or how == "nothing":
            why = f"{type(failed).__name__}: {failed}" if failed else "they ended without a word"
            raise RetryableError(f"training on {workers} workers: {why}") from failed
        return what


@contextmanager
def _passing_on(word: Any, on_progress: OnProgress | None) -> Any:
    """Hand on what the first worker says, from a thread, while the driver waits."""
    stop = threading.Event()

    def listen() -> None:
        while True:
            last = stop.wait(_SAY_SECONDS)
            for said in ray.get(word.heard.remote()):
                if on_progress is not None:
                    on_progress(said)
            if last:
                return

    thread = threading.Thread(target=listen, name="locum-train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _in_worker(config: dict[str, Any]) -> None:
    sys.path[:] = list(dict.fromkeys([*sys.path, *config["path"]]))
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    word, said_at, told = config["word"], 0.0, -1
    if ray.get(word.answer.remote()) is not None:  # an error of the last life, which would be the same again
        return

    def say(progress: Any) -> None:
        nonlocal said_at, told
        last = getattr(progress.last, "epoch", -1)
        if ranks.is_first and (time.monotonic() - said_at > _SAY_SECONDS or last > told):
            said_at, told = time.monotonic(), last
            word.say.remote(progress)

    try:
        what = config["function"](ranks, say, **config["arguments"])
    except (
        LocumError
    ) as e:  # to start again would not help: it is said, and workers that start again end at once
        ray.get(word.end.remote("raised", e))
        raise  # ends the others too, which may wait for this one
    if ranks.is_first:
        ray.get(word.end.remote("returned", what))
