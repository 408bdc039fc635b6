"""Locum on Ray: the job of `bench.teach_peers.local` by the RayRunner, which starts a Ray of its own."""

from __future__ import annotations

from bench.teach_peers.local import run


def main() -> None:
    from cluster.runner import RayRunner
    from schemas.cluster import LOCAL, RayOptions

    with RayRunner(RayOptions(ray=LOCAL)) as runner:
        run(runner)


if __name__ == "__main__":
    main()
