"""One decode actor as its worker sees it: calls as futures, how it is from outside, and what it said last."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TextIO

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.decode_actor import actor_class, resident_bytes
from cluster.decode_calls import Chunk, DecodeCall, Health, Hello

_WORDS_BYTES = 4000
_WORDS_LINES = 6
_WORDS_SECONDS = 2.0


class Decoder(Protocol):
    """A decoder in another process."""

    def hello(self) -> Future[Hello]: ...

    def take(self, call: DecodeCall) -> Future[Chunk]: ...

    def health(self) -> Future[Health]: ...

    def resident_bytes(self, hello: Hello) -> int:
        """Memory of the process, seen from outside; 0 where it cannot be seen."""
        ...

    def kill(self, hello: Hello | None) -> None:
        """End the process whatever it does; returns at once. Without ``hello`` it is known to be gone already."""
        ...

    def last_words(self, hello: Hello) -> str | None:
        """What a fatal signal left, and take it away.

        Empty where the process was killed from outside; None where its node is gone, and nobody is to blame.
        """
        ...


class RayDecoder:
    """A `Decoder` that is a Ray actor in a bundle of this worker's placement group."""

    def __init__(self, max_attempts: int, num_cpus: float, group: PlacementGroup | None, bundle: int) -> None:
        strategy: Any = "DEFAULT"
        if group is not None:
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        self._actor = (
            actor_class()
            .options(num_cpus=num_cpus, scheduling_strategy=strategy, enable_task_events=False)
            .remote(max_attempts)
        )
        self._here = ray.get_runtime_context().get_node_id()
        self._words: TextIO | None = None

    def hello(self) -> Future[Hello]:
        future: Future[Hello] = self._ask(self._actor.hello.remote())
        future.add_done_callback(self._hold_words)
        return future

    def take(self, call: DecodeCall) -> Future[Chunk]:
        return self._ask(self._actor.take.remote(call))

    def health(self) -> Future[Health]:
        return self._ask(self._actor.health.remote())

    def resident_bytes(self, hello: Hello) -> int:
        return resident_bytes(hello.pid) if hello.node_id == self._here else 0

    def kill(self, hello: Hello | None) -> None:
        ray.kill(self._actor)
        if hello is not None and hello.node_id == self._here:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hello.pid, signal.SIGKILL)

    def last_words(self, hello: Hello) -> str | None:
        if self._words is not None:
            with self._words as f:
                return in_one_line(f.read(_WORDS_BYTES))
        if hello.node_id == self._here:
            return ""
        if not any(n["Alive"] and n["NodeID"] == hello.node_id for n in ray.nodes()):
            return None
        strategy = NodeAffinitySchedulingStrategy(hello.node_id, soft=False)
        reader = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(words_in)
        try:
            return str(ray.get(reader.remote(hello.words_path), timeout=_WORDS_SECONDS))
        except ray.exceptions.GetTimeoutError:
            return ""
        except ray.exceptions.RayError:
            return None

    def _hold_words(self, future: Future[Hello]) -> None:
        """Open the file for last words where it is on this node, and take its name away: nothing is left behind."""
        if future.exception() is None and future.result().node_id == self._here:
            with contextlib.suppress(OSError):
                self._words = open(future.result().words_path, errors="replace")  # noqa: SIM115 - while it lives
                os.unlink(future.result().words_path)

    def _ask(self, ref: ray.ObjectRef[Any]) -> Future[Any]:
        future: Future[Any] = ref.future()
        return future


MakeDecoder = Callable[[int], Decoder]
"""Makes the decoder of a slot: 0, 1, … within the worker."""


def words_in(path: str) -> str:
    """Last words from a file, which is removed; empty where there are none."""
    try:
        with open(path, errors="replace") as f:
            text = f.read(_WORDS_BYTES)
        os.unlink(path)
    except OSError:
        return ""
    return in_one_line(text)


def in_one_line(text: str) -> str:
    """The head of the first stack that `faulthandler` wrote."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    frames = [line for line in lines[1:] if line.startswith("File ")]
    return " < ".join([*lines[:1], *frames[:_WORDS_LINES]])
