"""The workers of one run: they are claimed, started, watched, told to leave, and removed. Knows nothing of shards.

Everything that comes from Ray arrives in one inbox and is handled by the thread that calls `next_event`, so there is no
lock here.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.notes import Note
from cluster.place import Place, stalled
from cluster.session import Session
from cluster.sizing import Size, most_workers
from cluster.worker import WorkerSettings, actor_class
from cluster.worker_calls import Raised, Ready, Status, software
from pipeline.logs import about
from pipeline.store.shard_store import ShardStore
from pipeline.tasks.task import Task
from schemas.cluster import RayOptions
from schemas.errors import RetryableError, SettingsError

log = logging.getLogger("locum.ray")

_MAX_FAILED_STARTS = 3
_LEAVE_SECONDS = 5.0
_NODES_SECONDS = 5.0
_STATUS_SECONDS_A_WORKER = 0.02


class ShardError(RuntimeError):
    """Shard after shard fails with an exception; the message holds the last one's trace."""


class Foreman(Protocol):
    """Who gives the workers their work, and is told of what becomes of them."""

    def ready(self, place: Place) -> None:
        """A worker has loaded its models."""

    def lost(self, place: Place, cause: str, *, blame: bool) -> None:
        """A worker is no more. ``blame`` says that what it was computing may be the reason."""

    def leaves(self, place: Place) -> None:
        """A worker's node is about to go."""

    def has_work(self, place: Place) -> bool:
        """Whether a worker that is ready computes or commits something."""

    def needs(self, place: Place) -> bool:
        """Whether something would be lost with a worker: what it computes or commits, or results that wait there."""

    def note(self, notes: tuple[Note, ...]) -> None:
        """Warnings from afar."""


class Crew:
    """Workers for a task over a store. ``places`` holds them by number, from the claim on."""

    def __init__(
        self,
        session: Session,
        size: Size,
        options: RayOptions,
        task: Task,
        store: ShardStore,
        settings: WorkerSettings,
        foreman: Foreman,
    ) -> None:
        self._session, self._size, self._options, self._foreman = session, size, options, foreman
        self._made_of = (task, store, settings)
        self.places: dict[int, Place] = {}
        self.start_seconds = 0.0
        self.num_lost = 0
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._failed_starts = self._deaths_in_a_row = 0
        self._most = self._most_seen = size.most
        self._num_leaving = 0
        self._least, self._next_status = size.least, 0.0
        self.moved_at = self._looked_at_nodes = time.monotonic()

    def moved(self, place: Place) -> None:
        """A worker has come a step further."""
        place.moved_at = self.moved_at = time.monotonic()

    # ---------------------------------------------------------------- what arrives

    def next_event(self, timeout: float) -> bool:
        """Handle the next answer or accident; false where none came in time."""
        try:
            self._inbox.get(timeout=timeout)()
        except queue.Empty:
            return False
        return True

    def ask(self, place: Place, ref: Any, then: Callable[[Place, Any], None]) -> None:
        """Call ``then`` from `next_event` when the answer is there; where it will not come, the worker is lost."""

        def arrived(future: Future[Any]) -> None:
            self._inbox.put(lambda: self._answered(place, future, then))

        ref.future().add_done_callback(arrived)

    def _answered(self, place: Place, future: Future[Any], then: Callable[[Place, Any], None]) -> None:
        if place.number not in self.places:
            return
        error = future.exception()
        if error is None:
            then(place, future.result())
        elif isinstance(error, ray.exceptions.RayTaskError):  # of ours: workers catch what tasks raise
            raise error
        else:
            self.lose(place, error)

    # ---------------------------------------------------------------- coming

    def grow(self, num_waiting: int) -> None:
        """Claim places up to what the nodes hold and ``num_waiting`` shards ask for."""
        room = self._most - (len(self.places) - self._num_leaving)
        if room <= 0 or num_waiting <= 0:
            return
        coming = sum(1 for p in self.places.values() if not p.joined)
        for _ in range(min(room, num_waiting - coming)):
            group = placement_group(self._size.shape.bundles, strategy="PACK")
            place = Place(next(self._numbers), group)
            self.places[place.number] = place
            self.ask(place, group.ready(), self._placed)

    def _placed(self, place: Place, _: object) -> None:
        shape = self._size.shape
        strategy = PlacementGroupSchedulingStrategy(place.group, placement_group_bundle_index=0)
        place.actor = (
            actor_class()
            .options(
                num_cpus=shape.bundles[0]["CPU"],
                num_gpus=shape.gpus,
                scheduling_strategy=strategy,
                enable_task_events=False,
            )
            .remote(*self._made_of)
        )
        self.moved(place)
        self.ask(place, place.actor.start.remote(), self._started_up)

    def _started_up(self, place: Place, ready: Ready | Raised) -> None:
        if isinstance(ready, Raised):
            if isinstance(ready.fatal, RetryableError):  # of its surroundings: another may fare better
                self.lose(place, ready.fatal)
                return
            if ready.fatal is not None:
                raise ready.fatal
            raise ShardError(f"the task does not start on a worker:\n{ready.trace}")
        if ready.software != software():
            raise SettingsError(
                f"node {ready.node_id} has {ready.software}, the driver has {software()}: install the same on all nodes"
            )
        place.ready, self._failed_starts = ready, 0
        self.moved(place)
        self._foreman.note(ready.notes)
        self.start_seconds += ready.seconds
        seconds = time.monotonic() - place.asked_at
        of_it = about(worker=place.number, node=ready.node_id)
        log.info("worker %d is ready after %.1f s", place.number, seconds, extra=of_it)
        self._foreman.ready(place)

    # ---------------------------------------------------------------- going

    def worked(self) -> None:
        """A shard was computed: workers do not die one after another."""
        self._deaths_in_a_row = 0

    def lose(self, place: Place, error: BaseException, *, blame: bool = True) -> None:
        """A worker is no more, or must not be: it is removed, and another takes its place.

        Raises
        ------
        RetryableError
            If workers do not start, or die one after another without a shard computed between.
        """
        cause = " ".join(str(error).split())[:500]
        self._most_seen = max(self._most_seen, len(self.places))
        with_a_node = not _is_whole(place)
        self.remove(place)
        self.num_lost += 1
        if place.ready is None:
            self._not_started(cause, error, counts=not with_a_node)
            return
        with_its_node = place.ready.node_id not in self._session.living()
        self._deaths_in_a_row += not with_its_node
        self._foreman.lost(place, cause, blame=blame and not with_its_node)
        if self._deaths_in_a_row >= max(4 * self._options.shard_attempts, 2 * self._most_seen):
            raise RetryableError(
                f"{self._deaths_in_a_row} workers died and none computed a shard between; the last: {cause}"
            ) from error

    def _not_started(self, cause: str, error: BaseException, *, counts: bool) -> None:
        self._failed_starts += counts
        log.warning("a worker died while it started: %s", cause)
        if "ModuleNotFoundError" in cause:
            raise SettingsError(f"Locum is not installed on all nodes of the cluster: {cause}") from error
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise RetryableError(f"workers do not start: {cause}") from error

    def remove(self, place: Place) -> None:
        """Take a worker's place away, and what is in it."""
        if self.places.pop(place.number, None) is not None:
            self._num_leaving -= place.leaves
        if place.actor is not None:
            ray.kill(place.actor)
        remove_placement_group(place.group)

    def close(self) -> None:
        """Stop all workers; their decode actors go with them."""
        leaving = [p.actor.close.remote() for p in self.places.values() if p.ready is not None]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for place in list(self.places.values()):
            self.remove(place)

    # ---------------------------------------------------------------- watching

    def look(self, now: float, num_waiting: int) -> None:
        """Ask each worker how it goes, remove those that make no progress or whose nodes go, and withdraw claims of
        places for which ``num_waiting`` shards have no use."""
        asks = now >= self._next_status
        if asks:
            self._next_status = now + _STATUS_SECONDS_A_WORKER * len(self.places)
        self._withdraw(num_waiting)
        for place in list(self.places.values()):
            if place.leaves and not self._foreman.needs(place):
                self.remove(place)
                self._foreman.lost(place, "its node goes", blame=False)
            else:
                self._watch(place, now, asks=asks)
        if now - self._looked_at_nodes >= _NODES_SECONDS:
            self._looked_at_nodes = now
            self._look_at_nodes()

    def _withdraw(self, num_waiting: int) -> None:
        """A claim that waits is a demand, for which an autoscaler adds nodes."""
        unplaced = [p for p in self.places.values() if p.actor is None]
        needed = max(num_waiting, self._least - (len(self.places) - len(unplaced)))
        for place in unplaced[max(0, needed) :]:
            self.remove(place)

    def _watch(self, place: Place, now: float, *, asks: bool) -> None:
        if asks and place.ready is not None and not place.status_asked:
            place.status_asked = True
            self.ask(place, place.actor.status.remote(), self._told)
        starting = place.actor is not None and place.ready is None
        if not starting and not self._foreman.has_work(place):
            place.moved_at = now
        why = stalled(place, now, self._options.worker_stall_seconds)
        if why:
            self.lose(place, TimeoutError(why), blame=_is_whole(place) and not place.committing)

    def _told(self, place: Place, status: Status) -> None:
        place.status_asked = False
        self._foreman.note(status.notes)
        before, place.status = place.status, status
        if before is None or (before.key, before.clips) != (status.key, status.clips):
            self.moved(place)

    def _look_at_nodes(self) -> None:
        there, leaving = self._session.look()
        if self._size.spreads:
            self._most = most_workers(list(there.values()), self._size.shape, self._options)
        for place in list(self.places.values()):
            if place.ready is None or place.ready.node_id not in leaving or place.leaves:
                continue
            place.leaves = True
            self._num_leaving += 1
            log.warning(
                "node %s is about to go: worker %d takes nothing new",
                place.ready.node_id,
                place.number,
                extra=about(worker=place.number, node=place.ready.node_id),
            )
            self._foreman.leaves(place)


def _is_whole(place: Place) -> bool:
    """Whether all of a worker's claims have their nodes. Where decode actors lost theirs, it waits through no fault of
    its own."""
    return str(placement_group_table(place.group).get("state")) != "RESCHEDULING"
