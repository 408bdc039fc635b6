"""Locum on Ray: the job of `bench.teach_peers.local` by the RayRunner."""

from __future__ import annotations

from bench.teach_peers.local import run
from bench.teach_peers.ray_start import start_ray


def main() -> None:
    from cluster.runner import RayRunner

    start_ray()
    run(RayRunner())


if __name__ == "__main__":
    main()
