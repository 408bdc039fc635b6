"""Locum in one process: `jobs.teach.teach` as ``--local`` runs it, over an index made beforehand."""

from __future__ import annotations

from bench.teach_peers import models
from bench.teach_peers.marks import DONE, note
from bench.teach_peers.work import Work
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from pipeline.runner import Runner
from schemas.cluster import RayOptions


def run(runner: Runner) -> None:
    """Locum's whole job by ``runner``."""
    work = Work.load()
    models.quiet_builds = 1
    options = TeachOptions(
        batch_size=work.batch_size,
        device="cpu",
        num_threads=work.options.get("threads"),
        shard_clips=work.options.get("shard_clips"),
    )
    teach(work.index, work.out, work.target_spec, options, runner=runner)
    note(DONE)


if __name__ == "__main__":
    with runner_for(RayOptions(), local=True) as local:
        run(local)
