"""Locum on Ray: the job of `bench.teach_peers.local` by the RayRunner, which starts a Ray of its own."""

from __future__ import annotations

from bench.teach_peers.local import run
from jobs.runners import runner_for
from schemas.cluster import LOCAL, RayOptions


def main() -> None:
    with runner_for(RayOptions(ray=LOCAL), local=False) as runner:
        run(runner)


if __name__ == "__main__":
    main()
