"""Locum in one process: `jobs.teach.teach` with the LocalRunner, over an index made beforehand."""

from __future__ import annotations

from bench.teach_peers import models
from bench.teach_peers.marks import DONE, note
from bench.teach_peers.work import Work
from jobs.teach import TeachOptions, teach
from pipeline.runner import Runner


def run(runner: Runner | None = None) -> None:
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
    run()
