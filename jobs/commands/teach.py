"""The commands that index an archive and run the teacher over it, as the command line calls them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from jobs.commands.flags import Flag, Json, Out, Quiet, Ray, at_least, run_settings, say_failed
from schemas.cluster import RayOptions
from schemas.errors import EXIT_OK, EXIT_UNFINISHED
from schemas.frames import KeepSpec
from schemas.targets import TargetSpec


def index(
    source: str,
    *,
    out: Out,
    name: str = "videos",
    limit: int | None = None,
    max_hours: float | None = None,
    local: Flag = False,
    cluster: Ray = RayOptions(),
    as_json: Json = False,
    quiet: Quiet = False,
    config: str | None = None,
) -> int:
    """Find, name and probe videos.

    Parameters
    ----------
    source
        A manifest (.csv, .tsv, .jsonl, .parquet with a column uri), a folder, a glob, an s3:// prefix, a video.
    out
        Folder or URL under which the index is made.
    name
        First part of the index's folder name.
    limit
        Index at most so many videos, sampled evenly over label and split.
    max_hours
        Stop after so many hours; run again to continue.
    local
        Run in this process, without Ray; for debugging.
    cluster
        How the run is spread over Ray.
    as_json
        Print one JSON object.
    quiet
        Show no progress.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit, progress_display
    from jobs.index import index as run_index
    from jobs.runners import runner_for

    settings = run_settings(max_hours)
    with progress_display(quiet=quiet) as display, runner_for(cluster, local=local, device="cpu") as runner:
        show = display.phase("index", "files")
        report = run_index(
            source, out, name=name, limit=limit, settings=settings, runner=runner, on_progress=show
        )
    pending = report.pending_shards
    body = {
        "store": report.store.url,
        "entries": report.entries.num_rows,
        "probed": report.summary.rows,
        "unreadable": report.unreadable,
        "pending_shards": pending,
        "seconds": round(report.summary.seconds, 3),
    }
    text = (
        f"{report.entries.num_rows} entries, {report.summary.rows} files probed in this run, "
        f"{report.unreadable} unreadable\n{report.store.url}"
    )
    emit(body, as_json=as_json, text=text)
    say_failed(report.summary.failed_shards)
    return EXIT_UNFINISHED if pending else EXIT_OK


def teach(
    source: str,
    *,
    out: Out,
    spec: Annotated[TargetSpec, Parameter(name="*")],
    name: str = "targets",
    limit: int | None = None,
    max_hours: float | None = None,
    dry_run: Flag = False,
    batch_size: int | None = None,
    device: str = "auto",
    compile: Flag = False,
    num_threads: int | None = None,
    shard_clips: int | None = None,
    max_attempts: int = 3,
    max_transient_share: float = 0.1,
    max_damaged_share: float = 1.0,
    keep_frames: Flag = False,
    keep: KeepSpec | None = None,
    local: Flag = False,
    cluster: Ray = RayOptions(),
    profile: Flag = False,
    as_json: Json = False,
    quiet: Quiet = False,
    config: str | None = None,
) -> int:
    """Cache a teacher's logits and uncertainties for every clip of every video.

    Parameters
    ----------
    source
        A manifest (.csv, .tsv, .jsonl, .parquet with a column uri), a folder, a glob, an s3:// prefix, a video, or an
        index made by `locum index`.
    out
        Folder or URL under which the index and the target store are made.
    spec
        What is asked of the teacher.
    name
        First part of the store's folder name.
    limit
        Teach at most so many videos, sampled evenly over label and split.
    max_hours
        Stop after so many hours; run again to continue.
    dry_run
        Print videos, clips, shards, bytes and time, estimated from a few videos; write nothing.
    batch_size
        Clips a batch: that with which the store was begun where not given, and for a new store the fastest, found by a
        short probe. Halves itself where memory does not suffice.
    device
        'auto', 'cpu', 'cuda', 'cuda:1'.
    compile
        Compile the teacher with torch.compile; costs some seconds once.
    num_threads
        Threads of each worker's teacher on the CPU. Where not given: one (a worker a core), or with --local all.
    shard_clips
        Clips a shard, the unit of retry and commit; chosen from the total where not given.
    max_attempts
        How often to try a video that cannot be reached, or that crashes its decoder, makes it hang or swell.
    max_transient_share
        Stop when more than this share of videos cannot be reached.
    max_damaged_share
        Stop when more than this share of videos is damaged.
    keep_frames
        Keep a small view of every clip too, in a frame store beside the targets, of the same decoding; students are
        trained from it. `locum frames` does the same later.
    keep
        What is kept of each clip; any of these keeps frames.
    local
        Run in this process, without Ray and its protection against videos that crash a decoder; for debugging.
    cluster
        How the run is spread over Ray.
    profile
        Print where the time went.
    as_json
        Print one JSON object.
    quiet
        Show no progress.
    config
        YAML file with these settings; flags win.
    """
    from jobs.commands.console import emit, progress_display
    from jobs.estimate import estimate
    from jobs.runners import runner_for
    from jobs.teach import TeachOptions
    from jobs.teach import teach as run_teach

    at_least("--max-attempts", max_attempts, 1)
    for flag, given in (
        ("--batch-size", batch_size),
        ("--limit", limit),
        ("--shard-clips", shard_clips),
        ("--num-threads", num_threads),
    ):
        if given is not None:
            at_least(flag, given, 1)
    options = TeachOptions(
        name=name,
        limit=limit,
        batch_size=batch_size,
        device=device,
        compile=compile,
        num_threads=num_threads,
        shard_clips=shard_clips,
        max_attempts=max_attempts,
        settings=run_settings(max_hours, max_transient_share, max_damaged_share),
        keep=keep or (KeepSpec() if keep_frames else None),
    )
    if dry_run:
        guess = estimate(source, spec, options)
        emit(guess.to_json(), as_json=as_json, text=guess.to_text())
        return EXIT_OK
    runner = runner_for(
        cluster, local=local, max_attempts=max_attempts, device=device, num_threads=num_threads
    )
    with progress_display(quiet=quiet) as display, runner as running:
        report = run_teach(
            source,
            out,
            spec,
            options,
            runner=running,
            on_index_progress=display.phase("index", "files"),
            on_progress=display.phase("teach", "clips"),
        )
    body = report.to_json()
    emit(body, as_json=as_json, text=_teach_text(body))
    if profile:
        from jobs.commands.profile import profile_table

        print(profile_table(report.summary), file=sys.stderr)
    say_failed(report.index.summary.failed_shards, "of the index ")
    say_failed(report.summary.failed_shards)
    return EXIT_OK if report.complete else EXIT_UNFINISHED


def _teach_text(body: dict[str, Any]) -> str:
    from jobs.words import duration, size

    run = body["this_run"]
    lines = [
        f"{body['videos']} videos, {body['planned']} clips planned: {body['rows']} rows, "
        f"{body['quarantined_rows']} quarantined ({body['quarantined_videos']} videos damaged or unreadable)"
        + (f", {body['tombstoned_rows']} removed" if body["tombstoned_rows"] else ""),
        f"this run: {run['new_videos']} new videos, {run['rows']} rows in {duration(run['seconds'])} "
        f"({run['clips_per_second']:.1f} clips/s)",
    ]
    if body["quarantined_videos"]:
        lines.append(f"see: locum failures {body['store']}")
    if not body["complete"]:
        waiting = (
            f"{body['pending_index_shards']} shards of the index and {body['pending_shards']} of the targets"
        )
        lines.append(f"{waiting} are pending: run the same command again")
    lines.append(body["store"])
    if "frames" in body:
        kept = body["frames"]
        lines.append(
            f"{kept['rows']} clips kept ({size(kept['data_bytes'])}, {kept['bytes_per_clip'] / 1000:.1f} kB a clip)"
        )
        if kept["pending_shards"]:
            lines.append(f"{kept['pending_shards']} shards of frames are pending: run the same command again")
        lines.append(kept["store"])
    return "\n".join(lines)
