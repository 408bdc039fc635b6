"""`locum demo` as the command line calls it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Quiet
from schemas.errors import EXIT_OK, EXIT_STORE, EXIT_UNFINISHED, SettingsError

if TYPE_CHECKING:
    from jobs.demo import DemoReport


def demo(
    *,
    out: Annotated[str, Parameter(alias="-o")] = "demo-out",
    videos: int = 60,
    local: Flag = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Render a small archive of real encoded videos, run the main job over it, show the result.

    Parameters
    ----------
    out
        Local folder for the archive and the stores.
    videos
        How many videos to render.
    local
        Run in this process, without Ray.
    as_json
        Print one JSON object.
    quiet
        Show no progress.
    """
    if "://" in out:
        raise SettingsError(f"the demo renders into a local folder, got {out!r}")
    if videos < 2:
        raise SettingsError(f"--videos must be at least 2, got {videos}")
    from jobs.commands.console import emit, progress_display
    from jobs.demo import run_demo
    from jobs.runners import runner_for
    from schemas.cluster import RayOptions

    if not quiet:
        print(f"rendering {videos} synthetic videos into {out}/archive …", file=sys.stderr, flush=True)
    cores = min(4, os.cpu_count() or 1)
    with progress_display(quiet=quiet) as display, runner_for(RayOptions(), local=local) as runner:
        show = display.phase("teach", "clips")
        report = run_demo(out, num_videos=videos, workers=cores, runner=runner, on_progress=show)
    body = {
        **report.teach.to_json(),
        "manifest": str(report.manifest),
        "render_seconds": round(report.render_seconds, 2),
        "clean": report.verify.clean,
        "video_accuracy": round(report.video_accuracy, 4),
        "clip_accuracy": round(report.clip_accuracy, 4),
    }
    emit(body, as_json=as_json, text=_text(report))
    if not report.verify.clean:
        return EXIT_STORE
    return EXIT_OK if report.teach.complete else EXIT_UNFINISHED


def _text(report: DemoReport) -> str:
    from jobs.words import duration, size

    counts, run = report.teach.counts, report.teach.summary
    files = Counter(Path(v.uri).suffix for v in report.videos)
    rate = f" ({run.rows / run.seconds:.0f} clips/s)" if run.rows else " (all of it was there already)"
    hard = sorted(report.videos, key=lambda v: v.confidence)[:5]
    store = report.teach.store.url
    lines = [
        "",
        f"archive   {len(report.videos)} videos ({', '.join(f'{n} {s}' for s, n in files.most_common())}), "
        f"rendered in {duration(report.render_seconds)}; synthetic, its classes are motions",
        f"targets   {counts.rows} of {counts.planned} clips, {counts.quarantined_rows} quarantined, "
        f"{size(counts.data_bytes)}, in {duration(run.seconds)}{rate}",
        f"verify    {'clean: no gap, no duplicate, no stranger' if report.verify.clean else 'NOT clean'}",
        "",
        f"the teacher is right on {100 * report.video_accuracy:.0f} % of the videos and "
        f"{100 * report.clip_accuracy:.0f} % of the clips;",
        f"on the half of the clips where its entropy is lowest on {100 * report.surest_half_accuracy:.0f} %, "
        f"on the other half on {100 * report.least_sure_half_accuracy:.0f} %",
        "",
        "least sure of:",
        *(
            f"  {os.path.relpath(v.uri):<44} {v.answer:<16} p = {v.confidence:.2f}   label: {v.label}"
            for v in hard
        ),
        "",
        "the cache is plain Parquet:",
        f"  duckdb -c \"select top1, avg(entropy) from '{os.path.relpath(store)}/data/*.parquet' group by 1\"",
        "run again: nothing is computed twice. next:",
        f"  locum status {os.path.relpath(store)}",
        "  locum teach --help",
    ]
    return "\n".join(lines)
