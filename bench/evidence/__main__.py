"""The seed paper's experiment, end to end, over one data set or several: a page, and all numbers as JSON.

    python -m bench.evidence quick OUT                         # from nothing, in minutes: renders, teaches, the rest
    python -m bench.evidence run OUT motion=FOLDER fight=FOLDER interaction=FOLDER [--seeds 3]
    python -m bench.evidence run OUT my.yaml=FOLDER            # a data set of one's own: see `bench.evidence.recipe`

``run`` wants the teachers' stores and the kept frames, which docs/evidence.md says how to make; it trains students (of
every arm, seed and fold), calibrates policies, and judges all on test videos. Students that are there are not trained
again, so an interrupted run goes on. The same stores give the same numbers each time, but for seconds."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from bench.distill import say
from bench.evidence.gathered import SetEvidence, gather, to_json
from bench.evidence.page import page
from bench.evidence.recipe import FOLDER, read_recipe
from jobs.calibrate import CalibrateOptions, calibrate
from jobs.label import LabelOptions, label
from jobs.report import ReportOptions, report
from jobs.reporting.figures import Figures
from jobs.runners import runner_for
from jobs.teach import TeachOptions, teach
from jobs.words import duration
from pipeline.demo.archive import render_archive
from pipeline.demo.spec import demo_target_spec
from pipeline.models.memory import keep_freed_memory
from pipeline.report.page import render
from pipeline.report.style import as_file
from pipeline.store.document import now
from schemas.cluster import RayOptions
from schemas.errors import SettingsError
from schemas.frames import KeepSpec
from schemas.policy import Wish

QUICK_VIDEOS = 160
QUICK_KEEP = KeepSpec(num_frames=8, width=48, height=48)


def run(out: Path, sets: dict[str, Path], seeds: int, *, threads: int | None, jobs: int) -> list[SetEvidence]:
    """Everything of these sets, by recipe; the page, its figures and ``evidence.json`` in ``out``."""
    keep_freed_memory()
    started = time.monotonic()
    found = []
    for name, folder in sets.items():
        recipe = read_recipe(name)
        found.append(gather(recipe, folder, out / Path(name).stem, seeds, threads=threads, jobs=jobs))
        say(f"{recipe.title}: done after {duration(time.monotonic() - started)}")
    write(out, found, time.monotonic() - started)
    return found


def write(out: Path, found: list[SetEvidence], seconds: float) -> None:
    """The page, its figures and the numbers."""
    figures = Figures()
    trained = sum(a.seconds for s in found for a in s.arms)
    facts = [
        ("command", "python -m bench.evidence"),
        ("took", f"{duration(seconds)}, of which training (now or before) {duration(trained)}"),
        ("made", now()),
    ]
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "evidence.html").write_text(render(page(found, figures, facts)))
    for name, figure in figures.drawn.items():
        for kind in ("svg", "png"):
            (out / "figures" / f"{name}.{kind}").write_bytes(as_file(figure, kind))  # type: ignore[arg-type]
    (out / "evidence.json").write_text(json.dumps([to_json(s) for s in found], indent=1))
    print(out / "evidence.html")


def quick(out: Path, videos: int, threads: int | None) -> list[SetEvidence]:
    """All of it from nothing: an archive, the demo's teacher, students, policies; and a label store with its report."""
    manifest = render_archive(out / "archive", videos, workers=2)
    stores = out / "stores"
    with runner_for(RayOptions(), local=True) as runner:
        options = TeachOptions(batch_size=16, keep=QUICK_KEEP)
        targets = teach(str(manifest), str(stores), demo_target_spec(), options, runner=runner)
    say(f"targets: {targets.counts.rows} clips")
    found = run(out, {str(FOLDER / "quick.yaml"): stores}, 1, threads=threads, jobs=1)
    (student,) = (out / "quick").glob("from-the-cache-*")
    costs = read_recipe("quick").costs
    calibrate(str(student), Wish(max_cost=0.5), CalibrateOptions(name="half", costs=costs, overwrite=True))
    labelled = label(str(manifest), str(out / "labels"), str(student), "half", LabelOptions(audit_share=0.1))
    made = report(labelled.store.url, str(out / "report.html"), ReportOptions(overwrite=True))
    print(made.url)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    all_of_it = commands.add_parser("run")
    all_of_it.add_argument("out", type=Path)
    all_of_it.add_argument("sets", nargs="+", metavar="RECIPE=FOLDER")
    all_of_it.add_argument("--seeds", type=int, default=3)
    all_of_it.add_argument("--jobs", type=int, help="students at a time; one a core where not given")
    all_of_it.add_argument("--threads", type=int, default=1, help="of each student; it changes rounding")
    small = commands.add_parser("quick")
    small.add_argument("out", type=Path)
    small.add_argument("--videos", type=int, default=QUICK_VIDEOS)
    small.add_argument("--threads", type=int)
    args = parser.parse_args()
    try:
        if args.command == "quick":
            quick(args.out, args.videos, args.threads)
        else:
            sets = {name: Path(folder) for name, _, folder in (text.partition("=") for text in args.sets)}
            jobs = args.jobs or max(1, len(os.sched_getaffinity(0)) // args.threads)
            run(args.out, sets, args.seeds, threads=args.threads, jobs=jobs)
    except SettingsError as e:
        sys.exit(f"bench.evidence: {e}")


if __name__ == "__main__":
    main()
