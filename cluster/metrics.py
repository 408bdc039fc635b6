"""What a run shows on the metrics endpoint of its node, for Prometheus. Ray puts ``ray_`` before each name.

All of it comes from the driver, which hears of every shard: so there is one series a run, not one a worker. Counters
rise with each committed shard; gauges are as of a few seconds ago.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from cluster.crew import Crew
from cluster.schedule import Schedule
from cluster.tally import Tally
from pipeline.runner import Receipt
from pipeline.uris import without_secrets

COUNTERS = {
    "locum_clips": "Clips of committed shards.",
    "locum_videos_quarantined": "Videos of committed shards that could not be read, or only in part.",
    "locum_stage_seconds": "Seconds spent by workers and decode actors in each stage of committed shards.",
    "locum_workers_lost": "Workers that died or were killed.",
}
GAUGES = {
    "locum_shards": "Shards of the run by state.",
    "locum_workers": "Workers by state.",
    "locum_frames_waiting_bytes": "Decoded frames that wait for workers.",
    "locum_seconds_since_progress": "How long nothing has moved.",
}
_BY = {"locum_stage_seconds": "stage", "locum_shards": "state", "locum_workers": "state"}
"""The label of those that have one beside the store."""


class RunMetrics:
    """The metrics of one run over a store. They are zero when it ends, for the process may go on to another run."""

    def __init__(self, store: str) -> None:
        self._store = without_secrets(store)
        self._counters = {n: Counter(n, text, tag_keys=_labels(n)) for n, text in COUNTERS.items()}
        self._gauges = {n: Gauge(n, text, tag_keys=_labels(n)) for n, text in GAUGES.items()}
        self._shown: set[tuple[str, str | None]] = set()
        self._lost = 0

    def committed(self, receipt: Receipt) -> None:
        """A shard was committed."""
        self._count("locum_clips", receipt.rows)
        self._count("locum_videos_quarantined", len(receipt.failures))
        for stage, seconds in receipt.seconds.items():
            self._count("locum_stage_seconds", seconds, stage)

    def show(self, schedule: Schedule, crew: Crew, tally: Tally, now: float) -> None:
        """How the run stands."""
        places = list(crew.places.values())
        shards = {
            "pending": schedule.num_waiting,
            "computing": schedule.num_leased,
            "computed": schedule.num_computed,
            "committed": tally.summary.shards,
            "elsewhere": tally.summary.lost_races,
            "failed": len(schedule.failed),
        }
        workers = {
            "waiting": sum(p.actor is None for p in places),
            "starting": sum(p.actor is not None and p.ready is None for p in places),
            "ready": sum(p.ready is not None for p in places),
        }
        for state, number in shards.items():
            self._set("locum_shards", number, state)
        for state, number in workers.items():
            self._set("locum_workers", number, state)
        waiting = sum(p.status.waiting_bytes for p in places if p.status is not None)
        self._set("locum_frames_waiting_bytes", waiting)
        self._set("locum_seconds_since_progress", max(0.0, now - crew.moved_at))
        self._count("locum_workers_lost", crew.num_lost - self._lost)
        self._lost = crew.num_lost

    def close(self) -> None:
        """The run is over."""
        for name, by in self._shown:
            self._set(name, 0, by)

    def _set(self, name: str, value: float, by: str | None = None) -> None:
        self._shown.add((name, by))
        self._gauges[name].set(value, tags=self._tags(name, by))

    def _count(self, name: str, value: float, by: str | None = None) -> None:
        if value > 0:
            self._counters[name].inc(value, tags=self._tags(name, by))

    def _tags(self, name: str, by: str | None) -> dict[str, str]:
        return {"store": self._store} | ({} if by is None else {_BY[name]: by})


def _labels(name: str) -> tuple[str, ...]:
    return ("store", _BY[name]) if name in _BY else ("store",)
